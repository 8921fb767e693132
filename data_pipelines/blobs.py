"""Images by the SHA-256 of their bytes: small ones inside the ledger, large ones as files."""

import hashlib
import os
import sqlite3
import tempfile
from pathlib import Path

INLINE_BYTES = 100_000
"""Largest blob kept in SQLite, which reads smaller ones faster than the file system does
(sqlite.org/fasterthanfs.html) and does not spend a disk block on each."""


class Blobs:
    """A store that keeps equal bytes once.

    Args:
        db: The ledger's connection.
        folder: Where large blobs are, shared by all writers.
    """

    def __init__(self, db: sqlite3.Connection, folder: Path) -> None:
        """Open; the ledger's schema has the table."""
        self._db = db
        self._folder = folder

    def put(self, data: bytes) -> str:
        """Keep bytes and return their SHA-256 (hex); nothing is half written."""
        digest = hashlib.sha256(data).hexdigest()
        if len(data) <= INLINE_BYTES:
            self._db.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (digest, data))
            return digest
        path = self._path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
        return digest

    def get(self, digest: str) -> bytes | None:
        """Return the bytes; None where they are missing or no longer what they were."""
        path = self._path(digest)
        if path.is_file():
            data = path.read_bytes()
        else:
            query = "SELECT data FROM blobs WHERE sha256 = ?"
            row = self._db.execute(query, (digest,)).fetchone()
            if row is None:
                return None
            data = row[0]
        return data if hashlib.sha256(data).hexdigest() == digest else None

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest
