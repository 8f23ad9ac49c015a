"""Tests of exports by identifiers."""
