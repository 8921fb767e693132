"""Parts of files on a local disk, as many as fit, shared by all processes of a machine.

A piece is a file with its SHA-256 behind it. Whoever reads one has a shared lock on it, so that
nobody removes it meanwhile, and whoever fetches one has the lock of its stripe, so that nobody else
does. Locks end with the process, whatever killed it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from staged.jobs import locks
from staged.jobs.files import sweep, temporary

_SUFFIX: Final = ".piece"
_SUM_BYTES: Final = 32
_STRIPES: Final = 256
_LEFT: Final = 0.9
"""Share of the limit that is left when room is made, so that this is seldom done."""


class Pieces:
    """The pieces in a folder.

    Args:
        folder: Made if need be.
        max_bytes: Of all pieces together; more only where all are being read.

    Raises:
        ValueError: The folder's file system has no locks.
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Count what is there, and remove what others left half written."""
        self._folder, self._max_bytes = folder, max_bytes
        for name in ("stripes", *(f"{first:02x}" for first in range(256))):
            (folder / name).mkdir(parents=True, exist_ok=True)
            sweep(folder / name, lambda name: name.endswith(_SUFFIX))
        self._account(None)

    def read(self, key: str) -> bytes | None:
        """Return a piece; None where it is not there, or was damaged, and then is no more.

        Args:
            key: Hexadecimal digits, and what follows them.
        """
        with self.held(key) as file:
            data = None if file is None else file.read()
        if data is None:
            return None
        content, checksum = data[:-_SUM_BYTES], data[-_SUM_BYTES:]
        if hashlib.sha256(content).digest() != checksum:
            self.drop(key)
            return None
        return content

    @contextmanager
    def held(self, key: str) -> Iterator[BinaryIO | None]:
        """Keep a piece from being removed; None where it is not there."""
        path = self._path(key)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            yield None
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_SH)
            # Removed between the two, it can be read all the same: it is open.
            with suppress(FileNotFoundError):
                os.utime(path)
            yield file

    @contextmanager
    def fetching(self, key: str) -> Iterator[None]:
        """Be the only one who fetches a piece; look first whether somebody has."""
        stripe = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) % _STRIPES
        with locks.held(self._folder / "stripes" / f"{stripe:02x}"):
            yield

    def put(self, key: str, content: bytes) -> None:
        """Keep a piece, and remove what was not read for longest if there are too many.

        On a full disk nothing is kept.
        """
        path = self._path(key)
        half = temporary(path)
        try:
            # Not synced: what a power cut damages, its sum tells.
            with half.open("wb") as file:
                file.write(content)
                file.write(hashlib.sha256(content).digest())
            half.replace(path)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            print(f"{self._folder}: {error.strerror}; going on without keeping", file=sys.stderr)
            return
        finally:
            half.unlink(missing_ok=True)
        self._account(len(content) + _SUM_BYTES)

    def drop(self, key: str) -> None:
        """Remove a piece."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}{_SUFFIX}"

    def _account(self, more: int | None) -> None:
        """Add to what is there; None counts anew. Removes pieces where that is too much."""
        with locks.held(self._folder / "size") as file:
            known = os.pread(file, 32, 0)
            total = int(known or 0) + more if more is not None else self._max_bytes + 1
            if total > self._max_bytes:
                total = self._make_room()
            os.pwrite(file, f"{total:020d}".encode(), 0)

    def _make_room(self) -> int:
        """Remove the pieces that were not read for longest; returns the bytes of those left."""
        found = []
        for folder in self._folder.glob("[0-9a-f][0-9a-f]"):
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(_SUFFIX) and not entry.name.startswith("."):
                        try:
                            known = entry.stat()
                        except FileNotFoundError:
                            continue
                        found.append((known.st_mtime_ns, known.st_size, entry.path))
        total = sum(size for _, size, _ in found)
        if total <= self._max_bytes:
            return total
        for _, size, name in sorted(found):
            if total <= _LEFT * self._max_bytes:
                break
            if _removed(Path(name)):
                total -= size
        return total


def _removed(path: Path) -> bool:
    """Remove a piece unless somebody reads it."""
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    return True
