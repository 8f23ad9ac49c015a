"""Exports by identifiers: requests of fifty, so many at once, one merged iterator."""
