"""Pipelines of diffusers: how they are loaded, and an editing one as an image editor."""
