"""Loops that take trajectories to their end by calling roles; without torch."""
