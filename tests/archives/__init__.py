"""Tests of archives, as their bytes come."""
