"""Identifiers out of files: what formats there are, and what is repeated."""
