"""Measurements against hand-written code: both sides in one run, on this machine only."""
