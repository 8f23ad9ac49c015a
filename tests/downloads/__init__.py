"""Tests of the way from a link or bucket to records."""
