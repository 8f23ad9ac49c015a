"""Concurrent single look-ups that share requests."""
