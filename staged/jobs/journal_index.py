"""What stretches of a journal come to, kept beside it, so that they need no parsing again.

    NAME.index      a line for each full stretch of NAME.jsonl, itself a journal

Derived, and never needed: a stretch is taken from here only where the journal still has exactly its
bytes, every one of which was checked and parsed when the stretch was written down. From the first
that does not fit on, whoever opens the folder reads the journal line by line, and names what is
wrong with it; the journal's writer then writes the rest of the index anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO, Final

from staged import strict_json
from staged.jobs.journal import JournalReader

LINES, BYTES = 2**13, 2**24
"""Most of the journal in a stretch, but for its last line: hashed in a hundredth of a second."""
_FORMAT: Final = "staged-ledger-index/1"
_BLOCK_BYTES: Final = 2**20

_TEXT, _INT, _FLAG, _USD = {str}, {int}, {bool}, {float, int}
TABLES: Final[Mapping[str, tuple[Set[type], ...]]] = {
    # fingerprint, round
    "begins": (_TEXT, _INT),
    # meter, calls, money
    "counts": (_TEXT, _INT, _USD),
    # key, number, calls, money
    "held": (_TEXT, _INT, _INT, _USD),
    # key, number, round, whether it was paid for, purpose, money, place
    "answers": (_TEXT, _INT, _INT, _FLAG, _TEXT, _USD, _INT, _INT),
    # SHA-256, place in the file of blobs
    "blobs": (_TEXT, _INT, _INT),
    # unit, round, status, stage, reason, whether it has a detail, place
    "results": (_INT, _INT, _TEXT, _TEXT, _TEXT, _FLAG, _INT, _INT),
    # name, key, number, price
    "sending": (_TEXT, _TEXT, _INT, _USD | {NoneType}),
    # name, number
    "sent": (_TEXT, _TEXT),
}
"""Tables of an index of the records, and the types of their columns. A place is start and size, in
bytes. Tables are independent of one another; within one the order of the rows counts."""

Row = Sequence[Any]


class Stretch:
    """Rows of a stretch that is being read, line by line."""

    def __init__(self, start: int) -> None:
        """Begin at a byte of the journal."""
        self.start = start
        self.lines = 0
        self._tables: dict[str, list[Row]] = {name: [] for name in TABLES}
        self._counts: dict[str, tuple[int, float]] = {}

    def add(self, table: str, row: Row) -> None:
        """Keep a row."""
        if table != "counts":
            self._tables[table].append(row)
            return
        # Only sums are wanted of these, and most lines are such.
        meter, calls, usd = row
        calls_before, usd_before = self._counts.get(meter, (0, 0.0))
        self._counts[meter] = calls_before + calls, usd_before + usd

    def is_full(self, end: int) -> bool:
        """Say whether it is one once the journal has been read up to a byte."""
        return self.lines >= LINES or end - self.start >= BYTES

    def record(self, *, end: int, digest: str) -> dict[str, Any]:
        """Return what is written down once the stretch is full.

        Args:
            end: Byte of the journal at which it ends.
            digest: As of `new_digest`, of its bytes.
        """
        counts = [(meter, *sums) for meter, sums in self._counts.items()]
        return {
            "format": _FORMAT,
            "start": self.start,
            "end": end,
            "lines": self.lines,
            "digest": digest,
            "tables": {**self._tables, "counts": counts},
        }


@dataclass(frozen=True, kw_only=True)
class KnownStretch:
    """A stretch of a journal that is there as it was.

    Attributes:
        end: Byte of the journal at which it ends.
        lines: How many it has.
        tables: Its rows.
        index_end: Byte of the index behind it.
    """

    end: int
    lines: int
    tables: Mapping[str, Sequence[Row]]
    index_end: int


def new_digest() -> hashlib.blake2b:
    """Return what hashes the bytes of a stretch."""
    return hashlib.blake2b(digest_size=16)


def known_stretches(index: Path, journal: Path) -> Iterator[KnownStretch]:
    """Yield the stretches from the journal's beginning on, up to the first that does not fit.

    Raises:
        OSError: a file that is there cannot be read.
    """
    reader = JournalReader(index)
    try:
        with journal.open("rb") as file:
            end = 0
            for _, record in reader.new():
                _check(record)
                if record["start"] != end or not _stands(record, file):
                    return
                end = record["end"]
                yield KnownStretch(
                    end=end, lines=record["lines"], tables=record["tables"], index_end=reader.end
                )
    except (FileNotFoundError, ValueError):
        # No journal yet; or an index that is damaged, or another version's: it is written anew.
        return


def _check(record: Mapping[str, Any]) -> None:
    """Check that an index's line is one of ours, to the last value.

    Raises:
        ValueError: it is not.
    """
    fields = {"format": str, "start": int, "end": int, "lines": int, "digest": str, "tables": dict}
    strict_json.record(record, "stretch", fields)
    tables = strict_json.record(record["tables"], "tables", dict.fromkeys(TABLES, list))
    if record["format"] != _FORMAT:
        raise ValueError(f"format {record['format']!r:.50} is not {_FORMAT}")
    for name, columns in TABLES.items():
        rows = tables[name]
        if set(map(type, rows)) - {list} or set(map(len, rows)) - {len(columns)}:
            raise ValueError(f"{name}: rows of another length")
        for values, types in zip(zip(*rows, strict=True), columns, strict=bool(rows)):
            if set(map(type, values)) - set(types):
                raise ValueError(f"{name}: values of other types")


def _stands(record: Mapping[str, Any], journal: BinaryIO) -> bool:
    """Say whether the journal has the very bytes that were checked and parsed."""
    digest = new_digest()
    journal.seek(record["start"])
    left = record["end"] - record["start"]
    while left > 0 and (block := journal.read(min(left, _BLOCK_BYTES))):
        digest.update(block)
        left -= len(block)
    return left == 0 and bool(digest.hexdigest() == record["digest"])
