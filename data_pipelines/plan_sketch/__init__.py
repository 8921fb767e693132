"""Prompts to trajectories of plans, sketches, inspections and refinements."""
