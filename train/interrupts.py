"""Ctrl-C and SIGTERM without half of what was begun: noted when they come, obeyed after it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, NoReturn, Self

_ECHO_S = 3.0


class Interrupts:
    """A context in which the first signal only sets `received`; the second one acts at once."""

    def __init__(self, *, told: bool = True, after: str = "this step") -> None:
        """Nothing has come yet.

        Args:
            told: Say so when one comes: one of several processes is enough.
            after: What is ended before one is obeyed.
        """
        # torchrun passes on the Ctrl-C that the terminal has sent already.
        self._echo_s = _ECHO_S if "TORCHELASTIC_RUN_ID" in os.environ else 0.0
        self._received_at = 0.0
        self._told, self._after = told, after
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take over both signals; in another thread than the main one there are none to take."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @staticmethod
    def leave(number: int) -> NoReturn:
        """End as a signal would have: Ctrl-C as KeyboardInterrupt, SIGTERM as exit 143."""
        if number == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if time.monotonic() - self._received_at > self._echo_s:
                self.leave(number)
            return
        self.received, self._received_at = number, time.monotonic()
        if self._told:
            words = f"\nstopping after {self._after}; once more to stop at once"
            print(words, file=sys.stderr, flush=True)
