"""What the client promises, held for both transports against the local Braze over real sockets."""
