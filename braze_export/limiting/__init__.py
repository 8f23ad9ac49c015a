"""The rate limits: as values, and who is let through, and when."""
