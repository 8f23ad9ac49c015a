"""What Braze sends, as frozen records; read leniently, and known to pydantic. No requests."""
