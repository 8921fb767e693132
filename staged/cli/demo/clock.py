"""The parts of the demo: what each is, why, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from staged.jobs.files import read_json, write_json
from staged.jobs.progress import duration


class Clock:
    """Announces parts and takes their time.

    Attributes:
        seconds: Part to its time, earlier runs in the same folder included.
    """

    def __init__(self, path: Path) -> None:
        """Begin with no part.

        Args:
            path: File that keeps the times of all runs.
        """
        self.seconds: dict[str, float] = {}
        self._path = path
        kept = read_json(path) if path.is_file() else {}
        times = kept.items() if isinstance(kept, dict) else ()
        self._before = {part: float(s) for part, s in times if isinstance(s, int | float)}

    def spent(self) -> float:
        """Seconds of the parts that are done, earlier runs included."""
        return sum(self.seconds.values())

    @contextmanager
    def part(self, title: str, why: str) -> Iterator[None]:
        """Frame one part; its number, title and reason stand above what it prints."""
        print(f"\n{len(self.seconds) + 1}. {title}\n   {why}", flush=True)
        began = time.monotonic()
        yield
        now = time.monotonic() - began
        before = self._before.get(title, 0.0)
        self.seconds[title] = before + now
        write_json(self._path, self._before | self.seconds)
        in_all = f", {duration(before + now)} with earlier runs" if before else ""
        print(f"   ({duration(now)}{in_all})", flush=True)
