"""The files beside the shards: index, manifest, offsets, card."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from staged import strict_json
from staged.jobs.files import read_json, write_json

VERSION: Final = 1
INDEX: Final = "index.json"
OFFSETS: Final = "offsets.json"
MANIFEST: Final = "manifest.json"
CARD: Final = "README.md"

_SHARD_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,120}\.tar", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One line of the index."""

    shard: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a data set is and how it came to be.

    Attributes:
        title: Its name.
        fingerprints: Of the settings that made it; several after a merge.
        settings: Those settings, resolved.
        stats: Counts over its trajectories (`Stats.to_dict`).
        acceptance: Stage -> outcome (`accepted`, or the reason of a rejection) -> number.
        cost: Unit (`usd`, `requests`, …) -> amount, rejected samples included.
    """

    title: str
    fingerprints: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    stats: Mapping[str, Any] = field(default_factory=dict)
    acceptance: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"version": VERSION, **vars(self), "fingerprints": list(self.fingerprints)}


def write_index(folder: Path, entries: Sequence[ShardEntry]) -> None:
    """Write the index, which says that the data set is finished."""
    write_json(
        folder / INDEX,
        {
            "version": VERSION,
            "samples": sum(entry.samples for entry in entries),
            "bytes": sum(entry.bytes for entry in entries),
            "shards": [vars(entry) for entry in entries],
        },
    )


def read_index(folder: Path) -> tuple[ShardEntry, ...]:
    """Read the index.

    Raises:
        FileNotFoundError: there is none: no data set, or one that is not finished.
        ValueError: it is malformed.
    """
    path = Path(folder) / INDEX
    return parse_index(_read(path), str(path))


def parse_index(data: Any, place: str) -> tuple[ShardEntry, ...]:
    """Read what an index holds.

    Args:
        data: Decoded JSON.
        place: Where it is, for messages.

    Raises:
        ValueError: it is malformed.
    """
    fields = {"version": int, "samples": int, "bytes": int, "shards": list}
    strict_json.record(data, place, fields)
    check_version(data, place)
    entries = []
    for i, row in enumerate(data["shards"]):
        where = f"{place}: shards[{i}]"
        strict_json.record(row, where, ShardEntry.__annotations__)
        check_shard_name(row["shard"], where)
        entries.append(ShardEntry(**row))
    if len({entry.shard for entry in entries}) != len(entries):
        raise ValueError(f"{place}: a shard is listed twice")
    return tuple(entries)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest; FileNotFoundError if there is none, ValueError if it is malformed."""
    path = Path(folder) / MANIFEST
    data = strict_json.checked(_read(path), str(path))
    objects = dict.fromkeys(("settings", "stats", "acceptance", "cost"), dict)
    fields = {"version": int, "title": str, "fingerprints": list, **objects}
    strict_json.record(data, str(path), fields)
    check_version(data, path)
    for stage, outcomes in data["acceptance"].items():
        if type(outcomes) is not dict or not all(type(n) is int for n in outcomes.values()):
            raise ValueError(f"{path}: acceptance.{stage}: expected outcome -> number")
    if not all(type(amount) in (int, float) for amount in data["cost"].values()):
        raise ValueError(f"{path}: cost: expected unit -> amount")
    if not all(type(item) is str for item in data["fingerprints"]):
        raise ValueError(f"{path}: fingerprints: expected texts")
    del data["version"]
    return Manifest(**{**data, "fingerprints": tuple(data["fingerprints"])})


def _read(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent} has no {path.name}: it is no data set, or one that is not finished"
        )
    return read_json(path)


def shard_paths(source: Path | str | Sequence[Path | str]) -> tuple[Path, ...]:
    """List shards: a folder's by its index, or by name where it has none; or the given files.

    Raises:
        ValueError: a folder without shards.
    """
    if not isinstance(source, Path | str):
        return tuple(Path(item) for item in source)
    folder = Path(source)
    if folder.is_file():
        return (folder,)
    if (folder / INDEX).exists():
        return tuple(folder / entry.shard for entry in read_index(folder))
    found = tuple(sorted(folder.glob("*.tar")))
    if not found:
        raise ValueError(f"{folder}: no {INDEX} and no .tar files; is it a data set's folder?")
    return found


def check_shard_name(name: str, place: str) -> None:
    """Refuse names that lead out of the folder."""
    if not _SHARD_NAME.fullmatch(name):
        raise ValueError(f"{place}: {name!r:.100} is not the name of a shard")


def check_version(data: Mapping[str, Any], place: Path | str) -> None:
    """Refuse files of another version."""
    if data["version"] != VERSION:
        raise ValueError(f"{place}: version {data['version']} is not {VERSION}")
