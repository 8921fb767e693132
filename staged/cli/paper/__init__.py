"""`staged paper`: the one command that knows how to build, draw and show a whole study."""

from staged.cli.paper.command import main

__all__ = ["main"]
