"""What connects the client with other libraries, each room with an extra of its own."""
