"""What a command's exit status says; the same everywhere.

Whoever adds one adds its row to the table in `docs/commands.md`.
"""

from typing import Final

OK: Final = 0
"""Done."""
FAILED: Final = 1
"""Not done, nothing to do, or a bad outcome (damaged data, unscored samples); a line says why."""
USAGE: Final = 2
"""The command line is wrong: nothing was begun."""
STOPPED: Final = 3
"""A budget stopped the job; what is paid for is kept."""
INTERRUPTED: Final = 130
"""Ctrl-C (128 + SIGINT)."""
PIPE_CLOSED: Final = 141
"""Whoever read the output went away, such as `| head` (128 + SIGPIPE)."""
