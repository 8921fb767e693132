"""Drift: what an edit did to all of a picture, measured, undone where it can be, or refused."""
