"""Running a command: what goes wrong becomes one line and an exit status."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import traceback
from collections.abc import Callable

from staged import proxies
from staged.command_line import exit_codes
from staged.command_line.console import session
from staged.command_line.parser import UsageError
from staged.command_line.torch_import import tell_slow_import

_FOREIGN = {
    "OutOfMemoryError": "out of memory on the device",
    "SafetensorError": "a safetensors file cannot be read",
}
"""Errors of libraries that a user can cause, by the class' name: nothing is imported for them."""


def run(name: str, command: Callable[[], int]) -> int:
    """Run a command as a process should.

    Args:
        name: What stands before its messages, such as `staged`.
        command: Returns an exit status.

    Returns:
        The command's own status; 1 after an error, which is told in one line on standard error
        (`--debug` shows where it arose); 130 after Ctrl-C; 141 where the reader of its output
        went away.

    Raises:
        SystemExit: of the parser: a wrong command line, or `--help`.
        Exception: a mistake of ours.
    """
    # Threads of torch wait for one another by spinning. Where another process has a core, the one
    # that is waited for does not run meanwhile: a picture of the miniature took 50 to 70 seconds
    # instead of one. This is read as torch loads; a choice of the user's own stands.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with session() as console:
        try:
            try:
                with tell_slow_import("torch"):
                    return int(command())
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt:
            _say(name, "interrupted; the same command goes on from what is saved")
            return exit_codes.INTERRUPTED
        except BrokenPipeError:
            _close_output()
            return exit_codes.PIPE_CLOSED
        except Exception as error:
            described = describe(error)
            if described is None:
                raise
            if console.debug:
                traceback.print_exc()
            _say(name, f"error: {described}")
            return exit_codes.USAGE if isinstance(error, UsageError) else exit_codes.FAILED


def describe(error: Exception) -> str | None:
    """Say an error that a user or the machine can cause; None for a mistake of ours."""
    kind = type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        return f"this needs the module {error.name!r}, which is not installed"
    if isinstance(error, ImportError) and error.name is None:  # a library says what it needs
        named = proxies.variables() if "proxy" in str(error) else []
        return str(error) + (f" (it is set by {' and '.join(sorted(named))})" if named else "")
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{_text(error.filename)}: {error.strerror[:1].lower()}{error.strerror[1:]}"
    if isinstance(error, OSError) and error.strerror and error.errno:
        return f"{error.strerror[:1].lower()}{error.strerror[1:]}"
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, sqlite3.Error):
        return f"a database of this job cannot be used: {error}; restore its file or start anew"
    if kind in _FOREIGN:
        return f"{_FOREIGN[kind]}: {error}"
    if isinstance(error, ValueError | OSError):
        return str(error) or kind
    return None


def _text(filename: object) -> str:
    return os.fsdecode(filename) if isinstance(filename, str | bytes) else str(filename)


def _say(name: str, line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(f"{name}: {line}", file=sys.stderr, flush=True)


def _close_output() -> None:
    """Let what is left in the buffers go nowhere: Python would complain when it flushes at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(None, (sys.__stdout__, sys.__stderr__)):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
