"""Tests of exports that Braze prepares."""
