"""A file of records that only grows, written by one process and read by any number.

A line is a hash and JSON. What a kill or a loss of power cut off has no end of line, and is dropped
by the next writer; a whole line whose hash does not fit is damage, and an error.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Self

from pydantic_core import from_json

from staged import strict_json
from staged.jobs import locks

MAX_LINE_BYTES: Final = 2**26
_HASH_CHARS: Final = 16


class Span(NamedTuple):
    """Where a record stands: bytes of its line, without the end of line."""

    start: int
    size: int


class JournalReader:
    """Reads a journal as far as it is written, and goes on from there.

    It holds no open file: a network file system shows what other machines have written when a
    file is opened, and not before.
    """

    def __init__(self, path: Path) -> None:
        """Stand at the beginning; the file need not be there yet."""
        self.path = path
        self.end = 0
        """Bytes of the whole records that were read."""
        self.lines = 0
        """Lines that were read."""
        self.digest: hashlib.blake2b | None = None
        """Where one is set, the hash of the whole records that were read since."""

    def skip(self, end: int, lines: int) -> None:
        """Go on behind records that are known, from a byte on.

        Args:
            end: Where they end.
            lines: How many they are.
        """
        self.end, self.lines = end, self.lines + lines

    def new(self) -> Iterator[tuple[Span, dict[str, Any]]]:
        """Yield the records that were added since.

        Raises:
            ValueError: a line is damaged.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            if os.fstat(file.fileno()).st_size <= self.end:
                return
            file.seek(self.end)
            while line := file.readline(MAX_LINE_BYTES):
                if not _fits(line):
                    self._refuse_damage(line, file)
                    return
                yield self._took(line)

    def wrote(self, start: int, line: bytes) -> Iterator[tuple[Span, dict[str, Any]]]:
        """Yield the record that the journal's one writer has just added, without reading it back.

        And those before it that were not read yet.

        Args:
            start: Where the line begins.
            line: As it was written.
        """
        if start == self.end:
            yield self._took(line)
        else:
            yield from self.new()

    def _took(self, line: bytes) -> tuple[Span, dict[str, Any]]:
        span = Span(self.end, len(line) - 1)
        record = _parse(line[:-1], self.path, self.lines + 1)
        if self.digest is not None:
            self.digest.update(line)
        self.end += len(line)
        self.lines += 1
        return span, record

    def at(self, span: Span, file: BinaryIO | None = None) -> dict[str, Any]:
        """Read one record again.

        Args:
            span: Where it stands.
            file: The journal, open, for whoever reads many.

        Raises:
            ValueError: it is no longer what it was.
        """
        if file is None:
            with self.path.open("rb") as opened:
                return self.at(span, opened)
        line = os.pread(file.fileno(), span.size + 1, span.start)
        if not _fits(line):
            raise ValueError(
                f"{self.path}: the record at byte {span.start} has changed; restore the file"
            )
        return _parse(line[:-1], self.path)

    def _refuse_damage(self, line: bytes, rest: Any) -> None:
        """Tell a record in the making, or one cut off, from a damaged one."""
        # A writer begins a record when the one before it is on the disk. So where a good one
        # follows, this was good too; and until one does, the bytes of a record that another
        # machine is writing may come in any order.
        if not any(_fits(later) for later in iter(lambda: rest.readline(MAX_LINE_BYTES), b"")):
            return
        raise damaged(self.path, self.lines + 1)


class Journal:
    """A journal open for appending; no other process can open it meanwhile.

    Args:
        path: The file; made if need be.

    Raises:
        ValueError: another process writes it, or its last line is damaged.
    """

    def __init__(self, path: Path) -> None:
        """Open, and lock. What was cut off is still there until `repair`."""
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if not locks.try_whole(self._file, path):
                raise ValueError(
                    f"{path}: another process is writing this job; wait for it, or give each its "
                    "own rank"
                )
        except BaseException:
            os.close(self._file)
            raise

    def repair(self, reader: JournalReader) -> None:
        """Drop what was cut off after the records that `reader` has read: all of the file's."""
        size = os.fstat(self._file).st_size
        if b"\n" in os.pread(self._file, size - reader.end, reader.end):
            raise damaged(self.path, reader.lines + 1)
        if size > reader.end:
            self.cut(reader.end)

    def cut(self, end: int) -> None:
        """Drop everything from a byte on."""
        os.ftruncate(self._file, end)

    def append(self, record: dict[str, Any]) -> tuple[int, bytes]:
        """Add a record; it outlives this process when this returns, and the machine after `flush`.

        Returns:
            Where its line begins, and the line.

        Raises:
            ValueError: the record is too long.
            OSError: the disk is full; the file is as it was before.
        """
        text = strict_json.dumps(record).encode()
        if len(text) > MAX_LINE_BYTES - _HASH_CHARS - 2:
            raise ValueError(f"{self.path}: a record of {len(text)} bytes is too long to be read")
        line = _hash(text) + b" " + text + b"\n"
        return append(self._file, line).start, line

    def flush(self) -> None:
        """Bring everything to the disk, and to where other machines see it."""
        os.fsync(self._file)

    def close(self) -> None:
        """Let others write."""
        os.close(self._file)

    def __enter__(self) -> Self:
        """Return the journal."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def append(file: int, data: bytes) -> Span:
    """Add bytes to a file that is open for appending, all of them or none.

    Returns:
        Where they stand, without the last one.

    Raises:
        OSError: the disk is full.
    """
    start = os.fstat(file).st_size
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
    except BaseException:
        os.ftruncate(file, start)
        raise
    return Span(start, len(data) - 1)


def damaged(path: Path, line: int) -> ValueError:
    """Return the error of a damaged line, with the way out."""
    return ValueError(
        f"{path}, line {line} is damaged: restore the file from a copy, or delete that line to go "
        "on; what it recorded is then done and paid for again"
    )


def _fits(line: bytes) -> bool:
    return (
        line.endswith(b"\n")
        and line[_HASH_CHARS : _HASH_CHARS + 1] == b" "
        and line[:_HASH_CHARS] == _hash(line[_HASH_CHARS + 1 : -1])
    )


def _hash(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_HASH_CHARS // 2).hexdigest().encode()


def _parse(line: bytes, path: Path, number: int | None = None) -> dict[str, Any]:
    """Read a record whose hash fits, so that `Journal.append` wrote it: no key is there twice."""
    text = line[_HASH_CHARS + 1 :]
    try:
        try:
            record = from_json(text)  # reads three times as fast
        except ValueError:
            record = json.loads(text)  # reads deeper, and says better what is wrong
        if type(record) is not dict:
            raise ValueError(f"expected an object, got {type(record).__name__}")
    except (ValueError, RecursionError) as error:
        place = path if number is None else f"{path}:{number}"
        raise ValueError(f"{place}: no record: {error}") from None
    return record
