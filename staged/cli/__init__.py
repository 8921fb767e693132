"""The `staged` command, the only part that knows every other one.

Importing it imports no command: `staged --help` must answer at once.
"""

from staged.cli.main import main

__all__ = ["main"]
