"""Benchmarks and their scores."""
