"""The self-rewarding prompt optimiser (arXiv 2505.16763).

One vision-language model rewrites prompts for an image model, judges the pictures that they give,
and learns from its own judgement.
"""
