"""Ctrl-C and SIGTERM without half a step: noted when they come, obeyed between steps."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self


class Interrupts:
    """A context in which the first signal only sets `received`; the second one acts at once."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take over both signals; in another thread than the main one there are none to take."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def leave(self) -> NoReturn:
        """End as the signal would have: Ctrl-C as KeyboardInterrupt, SIGTERM as exit 143."""
        if self.received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None
        self.received = number
        if again:
            self.leave()
        print("\nstopping after this step; once more to stop at once", file=sys.stderr, flush=True)
