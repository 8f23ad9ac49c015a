"""Tests of single look-ups that share requests."""
