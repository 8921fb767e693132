"""Latents of a data set while it is encoded, for hours perhaps: a kill costs the last of them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final, Self

from staged import strict_json
from staged.jobs.files import move_into_place, write_json

_EVERY_S = 20.0
_MAX_BYTES: Final = 1000


class PartialLatents:
    """A file that grows beside its later name, and a note of how much of it is on the disk.

    Attributes:
        samples: Of the data set, in order, whose latents are in it.
    """

    def __init__(self, path: Path) -> None:
        """Take up what an earlier process left; only one may be at it.

        Args:
            path: Of the whole file.

        Raises:
            ValueError: The note is none.
            OSError: The file cannot be written.
        """
        self._path, self._part = path, part_of(path)
        self._note = note_of(path)
        size = self.samples = 0
        if self._part.is_file() and self._note.is_file():
            found = strict_json.read(self._note, max_bytes=_MAX_BYTES)
            noted = strict_json.record(found, str(self._note), {"samples": int, "bytes": int})
            if 0 <= noted["bytes"] <= self._part.stat().st_size:
                self.samples, size = noted["samples"], noted["bytes"]
        self._file = self._part.open("r+b" if size else "wb")
        self._file.truncate(size)
        self._file.seek(size)
        self._noted = time.monotonic()

    def __enter__(self) -> Self:
        """Go on writing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, whole or not."""
        self._file.close()

    def write(self, data: bytes) -> None:
        """Add latents."""
        self._file.write(data)

    def mark(self, samples: int) -> None:
        """Say that so many samples are in it; now and then it is noted on the disk.

        Args:
            samples: The first ones of the data set, and no other.
        """
        self.samples = samples
        if time.monotonic() - self._noted >= _EVERY_S:
            self._sync()
            write_json(self._note, {"samples": samples, "bytes": self._file.tell()})
            self._noted = time.monotonic()

    def finish(self) -> None:
        """Give the file its name: it is whole."""
        self._sync()
        move_into_place(self._part, self._path)
        self._note.unlink(missing_ok=True)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def part_of(path: Path) -> Path:
    """Where latents are until they are whole."""
    return path.with_name(f"{path.name}.part")


def note_of(path: Path) -> Path:
    """Where it is noted how many of them there are."""
    return path.with_name(f"{path.name}.part.json")
