"""Trajectories into shards, deterministically and never half."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from staged import images
from staged.jobs.files import move_into_place, sweep, temporary, write_json, write_whole
from staged.shards import tar
from staged.shards.card import card
from staged.shards.counts import Stats
from staged.shards.folder import (
    CARD,
    INDEX,
    MANIFEST,
    OFFSETS,
    VERSION,
    Manifest,
    ShardEntry,
    check_shard_name,
    write_index,
)
from staged.shards.limits import KEY, Limits
from staged.trajectory import ImageRef, Trajectory

DEFAULT_MAX_SAMPLES: Final = 1000
DEFAULT_MAX_BYTES: Final = 512 * 2**20


class ShardWriter:
    """Write trajectories into a folder of shards.

    A shard appears under its name when it is complete; `index.json` appears last and says that
    the data set is. A run that was killed is simply run again: shards that no index lists are
    replaced or removed. Use it as a context manager: it finishes on success and leaves the folder
    unfinished on an exception.

    Example:
        with ShardWriter(folder, title="shapes") as writer:
            writer.write("000001", trajectory)
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        title: str,
        fingerprints: tuple[str, ...] = (),
        settings: Mapping[str, Any] | None = None,
        max_samples: int = DEFAULT_MAX_SAMPLES,
        max_bytes: int = DEFAULT_MAX_BYTES,
        prefix: str = "shard",
        overwrite: bool = False,
    ) -> None:
        """Prepare the folder.

        Args:
            folder: Created if need be.
            title: Name of the data set.
            fingerprints: Of the settings that make it.
            settings: Those settings, as JSON data.
            max_samples: Most samples of a shard.
            max_bytes: Largest shard; a single larger sample still gets one of its own.
            prefix: Shards are called `<prefix>-000000.tar` and so on.
            overwrite: Replace a finished data set, which is refused otherwise.

        Raises:
            ValueError: a finished data set is there, or a bound below 1.
        """
        if max_samples < 1 or max_bytes < 1:
            raise ValueError(
                f"max_samples {max_samples}, max_bytes {max_bytes}: expected at least 1"
            )
        check_shard_name(f"{prefix}-000000.tar", "prefix")
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / INDEX).exists():
            if not overwrite:
                raise ValueError(
                    f"{self.folder} holds a finished data set; choose another folder, or remove it"
                )
            (self.folder / INDEX).unlink()
        self.stats = Stats()
        self._title, self._fingerprints, self._settings = title, fingerprints, settings or {}
        self._max_samples, self._max_bytes, self._prefix = max_samples, max_bytes, prefix
        self._entries: list[ShardEntry] = []
        self._offsets: dict[str, Any] = {}
        self._keys: set[str] = set()
        self._shard: _OpenShard | None = None
        self._finished = False

    def write(self, key: str, trajectory: Trajectory) -> None:
        """Append one sample.

        Args:
            key: Letters, digits, _ or -; unique in the data set.
            trajectory: Its images need their bytes; they are named anew, in order.

        Raises:
            ValueError: a bad or repeated key, an image that is missing or cannot be read back.
        """
        if self._finished:
            raise ValueError("the data set is finished; nothing can be added")
        if not KEY.fullmatch(key):
            raise ValueError(f"key {key!r:.100}: expected 1-80 letters, digits, _ or -")
        if key in self._keys:
            raise ValueError(f"key {key!r} was written before; keys are unique in a data set")
        data = _encode(key, trajectory)
        shard = self._shard
        if shard and (
            len(shard.samples) >= self._max_samples or shard.size + len(data) > self._max_bytes
        ):
            self._close_shard(shard)
            shard = None
        if shard is None:
            shard = _OpenShard(self.folder, f"{self._prefix}-{len(self._entries):06d}.tar")
            self._shard = shard
        shard.append(key, data)
        self._keys.add(key)
        self.stats.add(trajectory)

    def finish(
        self,
        *,
        acceptance: Mapping[str, Mapping[str, int]] | None = None,
        cost: Mapping[str, float] | None = None,
    ) -> tuple[ShardEntry, ...]:
        """Complete the data set and return its index; a second call changes nothing.

        Args:
            acceptance: Stage -> outcome -> number, for the manifest.
            cost: Unit -> amount over accepted and rejected samples; by default the sum over the
                samples written.
        """
        if self._finished:
            return tuple(self._entries)
        if self._shard:
            self._close_shard(self._shard)
        manifest = Manifest(
            title=self._title,
            fingerprints=self._fingerprints,
            settings=self._settings,
            stats=self.stats.to_dict(),
            acceptance=acceptance or {},
            cost=self.stats.cost if cost is None else cost,
        )
        write_json(self.folder / MANIFEST, manifest.to_dict())
        write_whole(self.folder / CARD, card(manifest).encode())
        write_json(self.folder / OFFSETS, {"version": VERSION, "shards": self._offsets})
        self._remove_leftovers()
        write_index(self.folder, self._entries)
        self._finished = True
        return tuple(self._entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        elif self._shard:
            self._shard.discard()

    def _close_shard(self, shard: "_OpenShard") -> None:
        entry = shard.close()
        self._entries.append(entry)
        self._offsets[entry.shard] = {"bytes": entry.bytes, "samples": shard.samples}
        self._shard = None

    def _remove_leftovers(self) -> None:
        """Remove what an earlier, longer or killed run left under this writer's names."""
        ours = re.compile(rf"{re.escape(self._prefix)}-\d{{6,}}\.tar")
        kept = {entry.shard for entry in self._entries}
        for path in self.folder.iterdir():
            if ours.fullmatch(path.name) and path.name not in kept:
                path.unlink()
        sweep(self.folder, ours.fullmatch)


class _OpenShard:
    """A shard being written under a temporary name."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / name
        self._temporary = temporary(self._path)
        self._file: BinaryIO = self._temporary.open("wb")
        self._sha256 = hashlib.sha256()
        self.size = 0
        self.samples: list[tuple[str, int, int]] = []

    def append(self, key: str, data: bytes) -> None:
        self.samples.append((key, self.size, self.size + len(data)))
        self._put(data)

    def close(self) -> ShardEntry:
        self._put(tar.end_of_archive(self.size))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        move_into_place(self._temporary, self._path)
        return ShardEntry(
            shard=self._path.name,
            samples=len(self.samples),
            bytes=self.size,
            sha256=self._sha256.hexdigest(),
        )

    def discard(self) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self.size += len(data)


def _encode(key: str, trajectory: Trajectory) -> bytes:
    limits = Limits()
    refs: list[ImageRef] = []
    members: list[bytes] = []
    for i, ref in enumerate(trajectory.images):
        if ref.png is None:
            raise ValueError(f"sample {key!r}: image {i} ({ref.name!r}) is not loaded")
        try:
            extension, _, _ = images.probe(ref.png, max_pixels=limits.pixels)
        except ValueError as error:
            raise ValueError(f"sample {key!r}: image {i}: {error}") from None
        refs.append(replace(ref, name=f"{i}.{extension}"))
        members.append(tar.encode_member(f"{key}.{i}.{extension}", ref.png))
    text = trajectory.with_images(refs).to_json().encode()
    data = b"".join([tar.encode_member(f"{key}.json", text), *members])
    if len(data) > limits.sample_bytes:
        raise ValueError(f"sample {key!r}: {len(data)} bytes exceed {limits.sample_bytes}")
    return data
