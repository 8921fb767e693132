"""The samples of a data set at an address, in the order and with the names of a local one."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from staged import strict_json
from staged.shards import tar
from staged.shards.folder import INDEX, OFFSETS, ShardEntry, parse_index
from staged.shards.index import offsets, rows_of
from staged.shards.limits import Limits, ShardError
from staged.shards.reader import DEFAULT_LIMITS, Sample, load
from staged.shards.streaming.pieces import Pieces
from staged.shards.streaming.remote import Remote
from staged.shards.streaming.settings import Streaming

_MAX_INDEX_BYTES: Final = 256 * 2**20
_MAX_OFFSETS_BYTES: Final = 2**30
_PIECE_BYTES: Final = 4 * 2**20
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
SUM_BYTES: Final = 32


class RemoteShards:
    """The samples of a data set as a sequence, each fetched when it is wanted.

    It is to an address what `ShardIndex` is to a folder, and gives the same samples in the same
    places. Usable from threads and after a fork.

    Attributes:
        entries: Of the index.
        keys: Of the samples.
    """

    def __init__(
        self, address: str, folder: Path, settings: Streaming, *, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        """Read what lies beside the shards.

        Args:
            address: Of the folder of shards.
            folder: Where samples are kept, of a local disk.
            settings: How they are fetched, and how many are kept.
            limits: Bounds on sizes.

        Raises:
            RemoteError: It cannot be had.
            ShardError: A sample is too large.
            ValueError: It is malformed.
        """
        self.limits, self._settings = limits, settings
        self._remote = remote = Remote(address, settings)
        place = f"{remote.shown}/{INDEX}"
        index = remote.whole(INDEX, max_bytes=_MAX_INDEX_BYTES)
        self.entries = parse_index(
            strict_json.loads(index, place=place, max_bytes=_MAX_INDEX_BYTES), place
        )
        place = f"{remote.shown}/{OFFSETS}"
        text = remote.whole(OFFSETS, max_bytes=_MAX_OFFSETS_BYTES)
        stored = offsets(strict_json.loads(text, place=place, max_bytes=_MAX_OFFSETS_BYTES), place)
        self.keys: list[str] = []
        self._places: list[tuple[int, int, int]] = []
        for number, entry in enumerate(self.entries):
            if not _SHA256.fullmatch(entry.sha256):
                raise ValueError(f"{remote.shown}/{INDEX}: {entry.shard}: no SHA-256")
            found = stored.get(entry.shard)
            rows = None if found is None else rows_of(found, entry.bytes, place)
            if rows is None or len(rows) != entry.samples:
                raise ValueError(
                    f"{place} does not fit {INDEX}: {entry.shard} has {entry.samples} samples; "
                    "`staged data reshard` writes both anew"
                )
            for key, start, stop in rows:
                if stop - start > limits.sample_bytes:
                    said = f"{stop - start} bytes exceed {limits.sample_bytes}"
                    raise ShardError(entry.shard, key, "too large", said)
                self.keys.append(key)
                self._places.append((number, start, stop))
        if len(set(self.keys)) != len(self.keys):
            raise ValueError(f"{place}: a key stands twice")
        self._pieces = Pieces(folder, int(settings.max_gib * 2**30))
        self._sums: Sequence[bytes] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: int) -> Sample:
        """Fetch one sample, or find it on the disk.

        Raises:
            ShardError: It cannot be read.
            RemoteError: It cannot be had.
        """
        return self._sample(i, self._content(i))

    def expect(self, sums: bytes) -> None:
        """Check samples from now on by the sums that `in_order` returned.

        Args:
            sums: SHA-256 of each sample, one after another.

        Raises:
            ValueError: There are more or fewer.
        """
        if len(sums) != SUM_BYTES * len(self):
            raise ValueError(
                f"{len(sums)} bytes of sums, {len(self)} samples have {SUM_BYTES * len(self)}"
            )
        rows = range(0, len(sums), SUM_BYTES)
        self._sums = [sums[row : row + SUM_BYTES] for row in rows]

    def in_order(self) -> Iterator[tuple[Sample, bytes]]:
        """Yield every sample, and the SHA-256 of its part of the shard.

        A shard comes as one stream, and its last sample only when its sum is that of the index.

        Raises:
            ShardError: A shard has other bytes, or a sample cannot be read.
            RemoteError: A shard cannot be had.
        """
        first = 0
        for entry in self.entries:
            places = range(first, first + entry.samples)
            first += entry.samples
            stream = _Stream(self._remote, entry)
            digest, position = hashlib.sha256(), 0
            waiting: list[tuple[Sample, bytes]] = []
            for i in places:
                yield from waiting
                _, start, stop = self._places[i]
                for piece in stream.between(position, start):
                    digest.update(piece)
                content = self._pieces.read(self._key(i))
                if content is None or len(content) != stop - start:
                    content = stream.read(start, stop)
                    self._pieces.put(self._key(i), content)
                digest.update(content)
                position = stop
                waiting = [(self._sample(i, content), hashlib.sha256(content).digest())]
            for piece in stream.between(position, entry.bytes):
                digest.update(piece)
            if digest.hexdigest() != entry.sha256:
                for i in places:
                    self._pieces.drop(self._key(i))
                raise ShardError(
                    entry.shard, None, "damaged tar",
                    f"sha256 is {digest.hexdigest()}, the index says {entry.sha256}",
                )  # fmt: skip
            yield from waiting

    @contextmanager
    def at_hand(self, places: Sequence[int]) -> Iterator[None]:
        """Fetch several samples at a time, and keep them on the disk while the block lasts.

        Raises:
            ShardError, RemoteError: One cannot be had.
        """
        with ExitStack() as kept:
            with ThreadPoolExecutor(self._settings.connections) as pool:
                for held in pool.map(self._held, dict.fromkeys(places)):
                    kept.enter_context(held)
            yield

    def _held(self, i: int) -> ExitStack:
        self._content(i)
        held = ExitStack()
        held.enter_context(self._pieces.held(self._key(i)))
        return held

    def _content(self, i: int) -> bytes:
        number, start, stop = self._places[i]
        entry, key = self.entries[number], self._key(i)
        found = self._kept(i)
        if found is not None:
            return found
        with self._pieces.fetching(key):
            found = self._kept(i)  # somebody was faster
            if found is None:
                chunks = self._remote.part(entry.shard, start, stop, size=entry.bytes)
                found = b"".join(chunks)
                if not self._as_expected(i, found):
                    said = "its bytes are not those of the first time; it has changed"
                    raise ShardError(entry.shard, self.keys[i], "stale offsets", said)
                self._pieces.put(key, found)
        return found

    def _kept(self, i: int) -> bytes | None:
        found = self._pieces.read(self._key(i))
        return found if found is not None and self._as_expected(i, found) else None

    def _as_expected(self, i: int, content: bytes) -> bool:
        return self._sums is None or hashlib.sha256(content).digest() == self._sums[i]

    def _sample(self, i: int, content: bytes) -> Sample:
        shard, key = self.entries[self._places[i][0]].shard, self.keys[i]
        group = tar.group_in(content, shard, key)
        return load(io.BytesIO(content), group, shard, limits=self.limits)

    def _key(self, i: int) -> str:
        number, start, _ = self._places[i]
        return f"{self.entries[number].sha256[:40]}-{start}"


class _Stream:
    """A shard from its beginning to its end, where parts may be passed over."""

    def __init__(self, remote: Remote, entry: ShardEntry) -> None:
        self._remote, self._entry = remote, entry
        self._chunks: Iterator[bytes] = iter(())
        self._at = -1
        self._rest = b""

    def between(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield what stands between samples, however much it is, a piece at a time."""
        for position in range(start, stop, _PIECE_BYTES):
            yield self.read(position, min(position + _PIECE_BYTES, stop))

    def read(self, start: int, stop: int) -> bytes:
        if start != self._at:
            size = self._entry.bytes
            self._chunks = self._remote.part(self._entry.shard, start, size, size=size)
            self._rest = b""
        parts, missing = [self._rest], stop - start - len(self._rest)
        while missing > 0:
            chunk = next(self._chunks)
            parts.append(chunk)
            missing -= len(chunk)
        data = b"".join(parts)
        self._at, self._rest = stop, data[stop - start :]
        return data[: stop - start]
