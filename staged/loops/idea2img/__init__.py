"""Idea2Img: an image model is explored by prompts until one gives the picture that was meant."""
