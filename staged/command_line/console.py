"""What the options that every command has decide about its output: how much, and for whom.

Text is printed as anywhere. `--quiet` sends standard output nowhere and shows no progress;
`--json` keeps standard output for one line of figures, and the text goes to standard error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from staged import strict_json

LOG_LEVELS = ("debug", "info", "warning", "error")

_SECRETIVE = {"openai": logging.INFO, "httpcore": logging.WARNING, "httpx": logging.WARNING}
"""From which level on their lines hold no headers and bodies of requests, nor addresses, whose
queries may be secrets."""


class Console:
    """The state of one command's output.

    Attributes:
        quiet: Nothing but errors, and figures where they are asked for.
        json: Standard output is for figures alone.
        debug: Show where an error arose.
    """

    def __init__(self) -> None:
        """Nothing is asked for yet."""
        self.quiet = self.json = False
        self.debug = os.environ.get("STAGED_DEBUG", "0") not in ("", "0")
        self._figures_go_to: TextIO | None = None

    def ask(
        self,
        *,
        quiet: bool = False,
        json: bool = False,
        debug: bool = False,
        log_level: str | None = None,
    ) -> None:
        """Add what a command line asks for."""
        self.debug |= debug
        if log_level is not None:
            _log(log_level)
        if json and not self.json:
            self.json, self._figures_go_to = True, sys.stdout
            sys.stdout = sys.stderr
        if quiet and not self.quiet:
            self.quiet = True
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    def figures(self, figures: Mapping[str, Any]) -> None:
        """Print figures as one line of JSON, if the user asked for it.

        Args:
            figures: Plain data; numbers that are not finite are null.
        """
        if self._figures_go_to is not None:
            print(strict_json.dumps(_finite(figures)), file=self._figures_go_to, flush=True)


_current = Console()


def console() -> Console:
    """Return the console of the command that runs."""
    return _current


@contextlib.contextmanager
def session() -> Iterator[Console]:
    """Give a command a console, and the process its standard output back afterwards."""
    global _current
    before, stdout = _current, sys.stdout
    _current = Console()
    try:
        yield _current
    finally:
        changed, sys.stdout, _current = sys.stdout, stdout, before
        if changed is not stdout and changed is not sys.stderr:
            changed.close()


def _log(level: str) -> None:
    """Let the logging of libraries through from a level on, warnings of Python included."""
    logging.basicConfig(
        level=level.upper(), format="%(levelname).1s %(name)s: %(message)s", force=True
    )
    logging.captureWarnings(True)
    for name, least in _SECRETIVE.items():
        logging.getLogger(name).setLevel(max(least, logging.root.level))
    # These libraries set the level of their own loggers when they are imported.
    for library in ("TRANSFORMERS", "DIFFUSERS", "HF_HUB"):
        os.environ[f"{library}_VERBOSITY"] = level


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value
