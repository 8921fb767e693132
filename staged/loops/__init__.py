"""Loops that call roles: plan, sketch, inspect, refine."""
