"""Settings as plain data."""

import dataclasses
import enum
from collections.abc import Mapping
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
