"""Every fault, at every public operation, over both transports; and cancelling anywhere."""
