"""Exports that Braze prepares in the background: starting one, waiting for it, reading it."""
