"""Settings as plain data."""

import dataclasses
import enum
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def to_dict(settings: Any) -> dict[str, Any]:
    """Turn settings into plain data that JSON and YAML hold: paths and enums become text."""
    return {
        field.name: plain(getattr(settings, field.name))
        for field in dataclasses.fields(settings)
        if field.init
    }


def plain(value: Any) -> Any:
    """Turn one settings value into plain data; see `to_dict`."""
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say how plain data differ: `key was 1 and is 2`, by dotted key, in order."""
    old, new = dict(_flat("", before)), dict(_flat("", now))
    return [
        f"{key} was {_shown(old, key)} and is {_shown(new, key)}"
        for key in sorted(old.keys() | new.keys())
        if key not in old or key not in new or old[key] != new[key]
    ]


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else key, item)
    else:
        yield prefix, value


def _shown(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "not there"
