"""Logs as lines of JSON, on standard error, without anybody's words in them.

An error is told by its kind and the places that it came through. What it says may quote a prompt,
and is left out unless the operator wants prompts in the logs.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from typing import Any

from staged import strict_json


class JsonFormatter(logging.Formatter):
    """One line of JSON for each record: time, level, logger, event, and its facts."""

    def __init__(self, *, with_words: bool) -> None:
        """Format records.

        Args:
            with_words: Say what errors say.
        """
        super().__init__()
        self._with_words = with_words

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["error"] = type(error).__name__
            line["at"] = [
                f"{frame.filename}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(error.__traceback__)
            ]
            if self._with_words:
                line["says"] = str(error)
        return strict_json.dumps(line)


def log_json(*, with_words: bool) -> None:
    """Send what the server logs, and the warnings of what it stands on, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(with_words=with_words))
    for name, level in (("staged.server", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
