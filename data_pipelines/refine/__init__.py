"""Refinement data from triples: an image, what is wrong with it, and a better one."""
