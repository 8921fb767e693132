"""What a job has done and paid for: an append-only SQLite file per writer, merged on read.

Everything is committed before it is used, so a process that dies loses only what was in flight.
Samples that were accepted, rejected or failed are all final; only an explicit new round tries the
failed ones again, and even that never repeats a call that was answered and paid for.
"""

import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from data_pipelines.blobs import Blobs
from staged import strict_json
from staged.backends.lmm_types import Attempt

Status = Literal["accepted", "rejected", "failed"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rounds (round INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY, round INTEGER NOT NULL, key TEXT NOT NULL, purpose TEXT NOT NULL,
    outcome TEXT NOT NULL, text TEXT NOT NULL, input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, usd REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS attempts_by_key ON attempts (key);
CREATE TABLE IF NOT EXISTS images (
    key TEXT PRIMARY KEY, round INTEGER NOT NULL, sha256 TEXT NOT NULL, usd REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blobs (sha256 TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS results (
    id INTEGER PRIMARY KEY, round INTEGER NOT NULL, unit INTEGER NOT NULL, status TEXT NOT NULL,
    stage TEXT NOT NULL, reason TEXT NOT NULL, sample TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS results_by_unit ON results (unit);
"""


class BudgetError(RuntimeError):
    """The job's budget does not allow the next call; what is done stays done."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Hard limits over the life of a job, earlier runs included; null for none.

    The calls that are in flight when a limit is met still count, so a job may end above a limit
    of money by what they cost.
    """

    usd: float | None = None
    """Money for language models and image editors."""
    requests: int | None = None
    """Calls of language models, retries included."""
    images: int | None = None
    """Images drawn."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The end of one unit of work.

    Attributes:
        status: Whether it became a sample.
        stage: The stage that decided.
        reason: Why it did not; empty for accepted ones.
        sample: What is needed to write the sample, as JSON; None unless accepted.
    """

    status: Status
    stage: str = ""
    reason: str = ""
    sample: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What calls have cost."""

    usd: float = 0.0
    requests: int = 0
    images: int = 0


class Ledger:
    """One writer's file, and the others' for reading.

    Args:
        folder: Where the ledgers of the job are.
        writer: Number of this writer.
        fingerprint: Of the settings that decide results; a folder holds one.
        budget: Limits of this writer.
        new_round: Start a round in which calls and samples that failed may be tried again.

    Raises:
        ValueError: the folder holds results of other settings, or the writer is already running.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fingerprint: str,
        writer: int = 0,
        budget: Budget | None = None,
        new_round: bool = False,
    ) -> None:
        """Open, or create."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._budget = budget or Budget()
        path = folder / f"{writer:05d}.sqlite"
        self._lock = _locked(path.with_suffix(".lock"))
        self._db = sqlite3.connect(path, isolation_level=None)
        # NORMAL: a commit outlives the death of the process. Power loss may take the last ones,
        # which costs their calls again and never consistency.
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self._begin_round(path, fingerprint, new_round)
        self.blobs = Blobs(self._db, folder / "blobs")
        usd, requests = self._db.execute(
            "SELECT COALESCE(SUM(usd), 0), COUNT(*) FROM attempts"
        ).fetchone()
        image_usd, images = self._db.execute(
            "SELECT COALESCE(SUM(usd), 0), COUNT(*) FROM images"
        ).fetchone()
        self._usd, self._requests, self._images = usd + image_usd, requests, images

    def __enter__(self) -> Self:
        """Return the ledger."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file and let another process write it."""
        self._db.close()
        os.close(self._lock)

    @property
    def spent(self) -> Spent:
        """What this writer has paid for, earlier runs included."""
        return Spent(usd=self._usd, requests=self._requests, images=self._images)

    def admit(self, purpose: str) -> None:
        """Allow one more call of a language model.

        Raises:
            BudgetError: money or requests are used up.
        """
        _within(self._usd, self._budget.usd, "usd")
        _within(self._requests, self._budget.requests, "requests")
        self._requests += 1  # now: others are admitted before this one is answered

    def attempts(self, key: str) -> Sequence[Attempt]:
        """Return the attempts at a request: all that were paid for, and this round's others."""
        rows = self._db.execute(
            "SELECT outcome, text, input_tokens, output_tokens, usd, round FROM attempts "
            "WHERE key = ? ORDER BY id",
            (key,),
        )
        made = (
            (
                Attempt(outcome=row[0], text=row[1], input_tokens=row[2], output_tokens=row[3],
                        usd=row[4]),
                row[5],
            )
            for row in rows
        )  # fmt: skip
        return [attempt for attempt, round_ in made if attempt.paid or round_ == self._round]

    def record(self, key: str, purpose: str, attempt: Attempt) -> None:
        """Keep an attempt; committed when it returns."""
        self._db.execute(
            "INSERT INTO attempts (round, key, purpose, outcome, text, input_tokens, "
            "output_tokens, usd) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (self._round, key, purpose, attempt.outcome, attempt.text, attempt.input_tokens,
             attempt.output_tokens, attempt.usd),
        )  # fmt: skip
        self._usd += attempt.usd

    def admit_image(self) -> None:
        """Allow one more image.

        Raises:
            BudgetError: money or images are used up.
        """
        _within(self._usd, self._budget.usd, "usd")
        _within(self._images, self._budget.images, "images")

    def image(self, key: str) -> bytes | None:
        """Return the image that was drawn for a request; None where it is to be drawn."""
        row = self._db.execute("SELECT sha256 FROM images WHERE key = ?", (key,)).fetchone()
        return self.blobs.get(row[0]) if row else None

    def record_image(self, key: str, png: bytes, usd: float) -> None:
        """Keep a drawn image; committed when it returns."""
        digest = self.blobs.put(png)
        # Replaced only where the blob was lost with the machine and had to be drawn again.
        self._db.execute(
            "INSERT OR REPLACE INTO images (key, round, sha256, usd) VALUES (?, ?, ?, ?)",
            (key, self._round, digest, usd),
        )
        self._usd += usd
        self._images += 1

    def finish(self, unit: int, result: Result) -> None:
        """Keep the end of a unit; committed when it returns."""
        self._db.execute(
            "INSERT INTO results (round, unit, status, stage, reason, sample) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (self._round, unit, result.status, result.stage, result.reason,
             strict_json.dumps(result.sample)),
        )  # fmt: skip

    def finished(self) -> set[int]:
        """Return the units of any writer that need no more work in this round."""
        rows = self._rows("SELECT unit, status, round FROM results ORDER BY id")
        done: set[int] = set()
        for unit, status, round_ in rows:
            if status != "failed" or round_ >= self._round:
                done.add(unit)
        return done

    def results(self) -> Iterator[tuple[int, Result]]:
        """Yield the last result of every unit of any writer, ordered by unit.

        The last one is of the newest round: a unit that failed may have been tried again by
        another writer, where fewer or more processes shared that round.
        """
        where: dict[int, tuple[Path, int]] = {}
        rounds: dict[int, int] = {}
        for path in self._paths():
            with closing(_read_only(path)) as db:
                # SQLite takes the bare column from the row that holds the maximum.
                for unit, row_id, round_ in db.execute(
                    "SELECT unit, MAX(id), round FROM results GROUP BY unit"
                ):
                    if round_ >= rounds.get(unit, 0):
                        where[unit], rounds[unit] = (path, row_id), round_
        open_files: dict[Path, sqlite3.Connection] = {}
        try:
            for unit in sorted(where):
                path, row_id = where[unit]
                db = open_files.setdefault(path, _read_only(path))
                status, stage, reason, sample = db.execute(
                    "SELECT status, stage, reason, sample FROM results WHERE id = ?", (row_id,)
                ).fetchone()
                yield unit, Result(
                    status=status, stage=stage, reason=reason, sample=strict_json.loads(
                        sample, place=f"{path}, unit {unit}", max_bytes=2**25
                    ),
                )  # fmt: skip
        finally:
            for db in open_files.values():
                db.close()

    def blob(self, digest: str) -> bytes:
        """Return an image of any writer by its SHA-256.

        Raises:
            ValueError: no writer has it undamaged.
        """
        found = self.blobs.get(digest)
        if found is None:
            for path in self._paths():
                with closing(_read_only(path)) as db:
                    found = Blobs(db, self.folder / "blobs").get(digest)
                if found is not None:
                    break
        if found is None:
            raise ValueError(f"{self.folder}: no image {digest}; restore the folder's files")
        return found

    def costs(self) -> Mapping[str, Mapping[str, float]]:
        """Return calls, tokens and money by purpose, over all writers."""
        costs: dict[str, dict[str, float]] = {}
        rows = self._rows(
            "SELECT purpose, COUNT(*), SUM(input_tokens), SUM(output_tokens), SUM(usd) "
            "FROM attempts GROUP BY purpose UNION ALL "
            "SELECT 'images', COUNT(*), 0, 0, SUM(usd) FROM images HAVING COUNT(*) > 0"
        )
        for purpose, *values in rows:
            kept = costs.setdefault(purpose, {})
            names = ("calls", "input_tokens", "output_tokens", "usd")
            for name, value in zip(names, values, strict=True):
                kept[name] = kept.get(name, 0) + value
        return dict(sorted(costs.items()))

    def _begin_round(self, path: Path, fingerprint: str, new_round: bool) -> None:
        rows = self._rows("SELECT round, fingerprint FROM rounds")
        for _, found in rows:
            if found != fingerprint:
                self.__exit__()
                raise ValueError(
                    f"{path}: holds results of other settings (fingerprint {found[:12]}, now "
                    f"{fingerprint[:12]}); write to another folder, or go back to the settings in "
                    f"{path.parent.parent / 'settings.yaml'}"
                )
        self._round = max((number for number, _ in rows), default=0)
        if not rows or new_round:
            self._round += 1
        self._db.execute("INSERT OR IGNORE INTO rounds VALUES (?, ?)", (self._round, fingerprint))

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.sqlite"))

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for path in self._paths():
            with closing(_read_only(path)) as db:
                rows += db.execute(query).fetchall()
        return rows


def unit_key(*parts: Any) -> str:
    """Return the SHA-256 (hex) of plain data: the key of a request."""
    return hashlib.sha256(strict_json.dumps(list(parts)).encode()).hexdigest()


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(
            f"{path}: another process is writing this job; wait for it, or give each its own rank"
        ) from None
    return descriptor


def _within(used: float, limit: float | None, name: str) -> None:
    if limit is not None and used >= limit:
        raise BudgetError(f"budget.{name}: {used:g} of {limit:g} are used up")
