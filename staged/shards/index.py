"""Random access: sample i of N, in one read, with nothing but offsets in memory."""

import io
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from staged import strict_json
from staged.jobs.files import read_json
from staged.shards import tar
from staged.shards.folder import OFFSETS, check_version, shard_paths
from staged.shards.limits import Limits, ShardError
from staged.shards.reader import DEFAULT_LIMITS, Sample, load

_Rows = list[tuple[str, int, int]]


class ShardIndex:
    """The samples of a data set as a sequence.

    Offsets come from `offsets.json` where it fits the shards' sizes, and from one scan over the
    tars' headers otherwise. It holds no open files, so it can be pickled, forked and shared by
    threads.
    """

    def __init__(self, folder: Path | str, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """Open a data set.

        Raises:
            ShardError: a shard is missing or damaged; names its folder, for a job may open several.
            ValueError: no data set, or malformed files beside the shards.
        """
        self.limits = limits
        self.shards = shard_paths(folder)
        self.keys: list[str] = []
        self._by_key: dict[str, int] = {}
        self._shard, self._start, self._stop = array("q"), array("q"), array("q")
        stored = _stored(Path(folder) / OFFSETS)
        for number, path in enumerate(self.shards):
            for key, start, stop in _rows(path, stored.get(path.name)):
                if key in self._by_key:
                    raise ShardError(str(path), key, "duplicate key", "it stands before too")
                self._by_key[key] = len(self.keys)
                self.keys.append(key)
                self._shard.append(number)
                self._start.append(start)
                self._stop.append(stop)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: int) -> Sample:
        """Read one sample; negative indices count from the end.

        Raises:
            IndexError: out of range.
            ShardError: the sample cannot be read.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        i %= len(self)
        path, key = self.shards[self._shard[i]], self.keys[i]
        size = self._stop[i] - self._start[i]
        if size > self.limits.sample_bytes:
            raise ShardError(
                path.name, key, "too large", f"{size} bytes exceed {self.limits.sample_bytes}"
            )
        try:
            with path.open("rb") as file:
                file.seek(self._start[i])
                data = file.read(size)
        except OSError as error:
            raise ShardError(path.name, key, "missing shard", str(error.strerror)) from None
        group = tar.group_in(data, path.name, key)
        return load(io.BytesIO(data), group, path.name, limits=self.limits)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def find(self, key: str) -> int:
        """Return the place of a key; ValueError if the data set has none such."""
        if key not in self._by_key:
            raise ValueError(f"no sample {key!r:.100} among {len(self)}")
        return self._by_key[key]


def offsets(data: Any, place: str) -> dict[str, Any]:
    """Read what `offsets.json` holds: shard -> what `rows_of` reads.

    Raises:
        ValueError: it is malformed.
    """
    record = strict_json.record(data, place, {"version": int, "shards": dict})
    check_version(record, place)
    shards: dict[str, Any] = record["shards"]
    return shards


def rows_of(stored: Any, size: int, place: str) -> _Rows | None:
    """Read the offsets of one shard: key, start and stop of each sample.

    Args:
        stored: Of `offsets`.
        size: Bytes of the shard.
        place: For messages.

    Returns:
        None where they are those of a shard of another size.

    Raises:
        ValueError: they are malformed.
    """
    strict_json.record(stored, place, {"bytes": int, "samples": list})
    if stored["bytes"] != size:
        return None
    return [_row(row, size, place) for row in stored["samples"]]


def _stored(path: Path) -> dict[str, Any]:
    return offsets(read_json(path), str(path)) if path.exists() else {}


def _rows(path: Path, stored: Any) -> _Rows:
    try:
        size = path.stat().st_size
        if stored is not None:
            rows = rows_of(stored, size, f"{path.parent / OFFSETS}: {path.name}")
            if rows is not None:
                return rows
        with path.open("rb") as file:
            return [(group.key, group.start, group.stop) for group in tar.groups(file, str(path))]
    except OSError as error:
        raise ShardError(str(path), None, "missing shard", str(error.strerror)) from None


def _row(row: Any, size: int, place: str) -> tuple[str, int, int]:
    if (
        type(row) is not list
        or [type(item) for item in row] != [str, int, int]
        or not 0 <= row[1] < row[2] <= size
    ):
        raise ValueError(f"{place}: {row!r:.100} is not [key, start, stop]")
    return row[0], row[1], row[2]
