"""Compare this implementation with numbers of the reference one: the `staged verify` command."""

from staged.verify.command import main

__all__ = ["main"]
