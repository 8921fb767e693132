"""Data sets of others as trajectories: each form reads the rows of one published schema."""
