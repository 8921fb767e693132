"""Pipelines that build trajectory data sets."""
