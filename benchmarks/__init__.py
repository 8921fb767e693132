"""Measurements on real hardware; see README.md."""
