"""Profiles into columns: Arrow, Parquet, and what dlt loads."""
