"""What Braze sends, as frozen attrs classes. Values only: no decoding, no requests."""
