"""Generators of images from prompts: services, and pipelines of diffusers."""
