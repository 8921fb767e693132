"""`staged demo`: the whole method in miniature, from prompts to a scored model, with a report."""

from staged.cli.demo.command import main

__all__ = ["main"]
