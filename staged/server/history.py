"""What was asked for and what came of it: events in SQLite, pictures in files beside it.

    history.db        trajectories, their events, and which pictures they have
    pictures/ab/      pictures under the SHA-256 of their bytes, each once
    secret            the key that signs addresses of pictures
    .lock             held by the server

A picture's file is there before the event that tells of it, and an event before any client is told,
so that whatever kills the server costs what was being drawn and no more. For several threads at
once; one process at a time.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Self

from staged import strict_json
from staged.jobs import locks
from staged.server.feed import FeedEvent
from staged.server.pictures import PictureFolder
from staged.server.record import FAILED, FIELDS, MAX_JSON_BYTES, RUNNING, HistoryRecord

_INTERRUPTED: Final = "interrupted"

_VERSION: Final = 1
_SECRET_BYTES: Final = 32
_TABLES: Final = """
CREATE TABLE trajectories (
    id TEXT PRIMARY KEY,
    client TEXT NOT NULL,
    kind TEXT NOT NULL,
    created_s REAL NOT NULL,
    start TEXT NOT NULL,      -- the trajectory before its first step, as JSON
    words TEXT NOT NULL,      -- the prompt as it was given
    seed INTEGER NOT NULL,
    asked TEXT NOT NULL,      -- settings that the request named, as JSON
    parent TEXT,              -- of a fork
    num_given INTEGER NOT NULL,
    status TEXT NOT NULL,
    reason TEXT
);
CREATE INDEX by_client ON trajectories (client, created_s);
CREATE TABLE events (
    trajectory TEXT NOT NULL REFERENCES trajectories (id) ON DELETE CASCADE,
    id INTEGER NOT NULL,
    name TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (trajectory, id)
) WITHOUT ROWID;
CREATE TABLE pictures (
    trajectory TEXT NOT NULL REFERENCES trajectories (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    PRIMARY KEY (trajectory, name)
) WITHOUT ROWID;
CREATE INDEX by_name ON pictures (name);
"""


class History:
    """The folder of a server, held from entering to leaving it."""

    def __init__(self, home: Path, *, max_kept: int) -> None:
        """Nothing is touched.

        Args:
            home: Made if need be.
            max_kept: Trajectories; the oldest are forgotten for new ones.
        """
        self.home, self._max_kept = home, max_kept
        self._lock = threading.Lock()
        self._leaving = ExitStack()
        self._pictures = PictureFolder(home / "pictures")
        self.secret = b""
        """Signs addresses of pictures."""

    def __enter__(self) -> Self:
        """Open it; what an earlier process left unfinished has failed as `interrupted`.

        Raises:
            ValueError: Another server has it, or it is of another version.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        busy = f"another server keeps its history in {self.home}; choose another home"
        with ExitStack() as leaving:
            leaving.enter_context(locks.alone(self.home / ".lock", busy))
            self._db = sqlite3.connect(
                self.home / "history.db", check_same_thread=False, isolation_level=None
            )
            leaving.callback(self._db.close)
            self._open()
            self.secret = self._read_secret()
            self._clean()
            self._leaving = leaving.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._leaving.close()

    # --- trajectories ------------------------------------------------------------------------

    def add(self, record: HistoryRecord, pictures: Iterable[bytes] = ()) -> None:
        """Note that a trajectory was asked for.

        Args:
            record: What of it is known.
            pictures: Its input images, and those of steps that it was given.
        """
        with self._lock:
            names = [self._pictures.write(data) for data in pictures]
            row = record.row()
            with self._transaction():
                self._db.execute(
                    f"INSERT INTO trajectories ({FIELDS}) VALUES ({', '.join('?' * len(row))})",
                    row,
                )
                self._note_pictures(record.id, names)
            self._forget_oldest()

    def find(self, id: str) -> HistoryRecord | None:
        """Return a trajectory; None where there is none of that name."""
        with self._lock:
            row = self._db.execute(
                f"SELECT {FIELDS} FROM trajectories WHERE id = ?", (id,)
            ).fetchone()
        return None if row is None else HistoryRecord.of(row)

    def newest(
        self, client: str, *, limit: int, before_s: float | None = None, words: str = ""
    ) -> list[HistoryRecord]:
        """List a client's trajectories, newest first.

        Args:
            client: Whose.
            limit: How many, at most.
            before_s: Only those that were asked for before that time.
            words: Only those whose prompt holds this, in any case.
        """
        # What may stand for anything in LIKE stands for itself.
        pattern = "".join(f"\\{c}" if c in "%_\\" else c for c in words)
        with self._lock:
            rows = self._db.execute(
                f"SELECT {FIELDS} FROM trajectories WHERE client = ? AND created_s < ? "
                "AND words LIKE ? ESCAPE '\\' ORDER BY created_s DESC, id LIMIT ?",
                (client, 1e18 if before_s is None else before_s, f"%{pattern}%", limit),
            ).fetchall()
        return [HistoryRecord.of(row) for row in rows]

    def delete(self, id: str) -> None:
        """Forget a trajectory, and the pictures that no other has."""
        with self._lock:
            self._delete(id)

    # --- events ------------------------------------------------------------------------------

    def tell(
        self, id: str, event: FeedEvent, *, status: str = RUNNING, reason: str | None = None
    ) -> None:
        """Keep an event, and what its trajectory is after it."""
        with self._lock, self._transaction():
            self._db.execute(
                "INSERT INTO events (trajectory, id, name, data) VALUES (?, ?, ?, ?)",
                (id, event.id, event.name, strict_json.dumps(event.data)),
            )
            if status != RUNNING:
                self._db.execute(
                    "UPDATE trajectories SET status = ?, reason = ? WHERE id = ?",
                    (status, reason, id),
                )

    def events(self, id: str, after: int = 0) -> list[FeedEvent]:
        """Read a trajectory's events behind a number."""
        with self._lock:
            rows = self._db.execute(
                "SELECT id, name, data FROM events WHERE trajectory = ? AND id > ? ORDER BY id",
                (id, after),
            ).fetchall()
        return [FeedEvent(id=n, name=name, data=_loads(data)) for n, name, data in rows]

    # --- pictures ----------------------------------------------------------------------------

    def keep_picture(self, id: str, data: bytes) -> str:
        """Keep a picture of a trajectory, durably; returns its name."""
        with self._lock:
            name = self._pictures.write(data)
            self._note_pictures(id, [name])
        return name

    def picture(self, name: str) -> bytes:
        """Read a picture by its name.

        Raises:
            ValueError: It cannot be read; names the file.
        """
        return self._pictures.read(name)

    def _note_pictures(self, id: str, names: Sequence[str]) -> None:
        self._db.executemany(
            "INSERT OR IGNORE INTO pictures (trajectory, name) VALUES (?, ?)",
            [(id, name) for name in names],
        )

    # --- keeping house -----------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block's changes, or none."""
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _open(self) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            self._db.execute(f"PRAGMA {pragma}")
        [version] = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise ValueError(
                f"{self.home}/history.db is of version {version}, this server writes {_VERSION}; "
                "choose another home"
            )

    def _read_secret(self) -> bytes:
        path = self.home / "secret"
        if path.is_file() and len(secret := path.read_bytes()) == _SECRET_BYTES:
            return secret
        path.unlink(missing_ok=True)
        secret = secrets.token_bytes(_SECRET_BYTES)
        # Nobody else's to read from the first moment on.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
        return secret

    def _clean(self) -> None:
        """Take away what a killed process left: halves, pictures of nothing, unfinished work."""
        detail = "the server ended before the trajectory did; fork it to go on"
        data = strict_json.dumps({"reason": _INTERRUPTED, "detail": detail})
        with self._transaction():
            self._db.execute(
                "INSERT INTO events (trajectory, id, name, data) "
                "SELECT id, 1 + (SELECT COUNT(*) FROM events WHERE trajectory = t.id), 'failed', ? "
                "FROM trajectories t WHERE status = ?",
                (data, RUNNING),
            )
            self._db.execute(
                "UPDATE trajectories SET status = ?, reason = ? WHERE status = ?",
                (FAILED, _INTERRUPTED, RUNNING),
            )
        names = self._db.execute("SELECT DISTINCT name FROM pictures")
        self._pictures.keep_only({name for (name,) in names})
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        [number] = self._db.execute("SELECT COUNT(*) FROM trajectories").fetchone()
        rows = self._db.execute(
            "SELECT id FROM trajectories WHERE status != ? ORDER BY created_s LIMIT ?",
            (RUNNING, max(0, number - self._max_kept)),
        ).fetchall()
        for (id,) in rows:
            self._delete(id)

    def _delete(self, id: str) -> None:
        names = self._db.execute("SELECT name FROM pictures WHERE trajectory = ?", (id,)).fetchall()
        self._db.execute("DELETE FROM trajectories WHERE id = ?", (id,))
        for (name,) in names:
            others = "SELECT 1 FROM pictures WHERE name = ? LIMIT 1"
            if self._db.execute(others, (name,)).fetchone() is None:
                self._pictures.remove(name)


def _loads(text: str) -> Any:
    return strict_json.loads(text, place="history.db", max_bytes=MAX_JSON_BYTES)
