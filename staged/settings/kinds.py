"""The types that a settings field can have: checking a scalar against one, and naming it."""

import dataclasses
import difflib
import enum
import math
import types
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

MISSING = object()
"""Stands for a value that could not be had; `None` is a value."""


def is_union(kind: Any) -> bool:
    """Tell whether the type is `Union[...]`, `Optional[...]` or `a | b`."""
    return get_origin(kind) in (Union, types.UnionType)


def types_of(cls: type[Any]) -> Mapping[str, Any]:
    """Return the type of each field of a class, by name; evaluated once, which takes long."""
    hashable: Any = cls  # as mypy does not know
    return _types_of(hashable)


@cache
def _types_of(cls: Any) -> Mapping[str, Any]:
    return get_type_hints(cls)


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a dataclass field, or `MISSING`."""
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return MISSING


def scalar(kind: Any, value: Any) -> Any:
    """Return a scalar as the given type without guessing, or `MISSING`.

    Raises:
        TypeError: settings cannot have a field of this type.
    """
    if kind is Any:
        return value if _holds_numbers(value) else MISSING
    if get_origin(kind) is Literal:
        # `in` alone would let True pass for 1.
        fits = any(type(value) is type(choice) and value == choice for choice in get_args(kind))
        return value if fits else MISSING
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        if isinstance(value, kind):
            return value
        same = (m for m in kind if type(m.value) is type(value) and m.value == value)
        return next(same, MISSING)
    if kind is Path:
        return _path(value)
    if kind is float:
        return _finite(value)
    if kind in (bool, int, str):
        return value if type(value) is kind else MISSING
    raise TypeError(
        f"settings cannot have a field of type {name(kind)}; use a scalar, a tuple, "
        "dict[str, ...], a section, or a union of these"
    )


def name(kind: Any) -> str:
    """Return how a type is called in messages: `int or null`, `fast or exact`."""
    if kind is type(None):
        return "null"
    if is_union(kind):
        return " or ".join(name(member) for member in get_args(kind))
    if members := choices(kind):
        return " or ".join(members)
    if get_origin(kind) is tuple:
        members = ["..." if member is Ellipsis else name(member) for member in get_args(kind)]
        return f"[{', '.join(members)}]"
    if get_origin(kind) is not None:
        return str(kind)
    return getattr(kind, "__name__", str(kind))


def choices(kind: Any) -> list[str]:
    """Return the values that a `Literal` or an enum allows, as text; empty for other types."""
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return [str(member.value) for member in kind]
    return []


def way_out(kind: Any, value: Any) -> str:
    """Return what to do about a scalar that does not fit, to follow the message, or nothing."""
    if members := choices(kind):
        return nearest(str(value), members)
    if kind is str and not isinstance(value, Mapping | list):
        return "; quote it if it is text"
    if kind is int and isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}"
    if (kind is float and isinstance(value, float)) or (kind is Any and not _holds_numbers(value)):
        return "; it must be finite"
    return ""


def show(value: Any) -> str:
    """Return a value as a person would write it in YAML, shortened."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def nearest(given: str, known: Sequence[str]) -> str:
    """Return the suggestion that follows an unknown name: the nearest one, or all of them."""
    if close := difflib.get_close_matches(given, known, n=1):
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""


def _holds_numbers(value: Any) -> bool:
    """Whether every float of a free value, in lists too, is finite; mappings come by themselves."""
    if isinstance(value, list | tuple):
        return all(map(_holds_numbers, value))
    if isinstance(value, Mapping):
        return all(map(_holds_numbers, value.values()))
    return not isinstance(value, float) or math.isfinite(value)


def _finite(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return MISSING
    try:
        number = float(value)
    except OverflowError:
        return MISSING
    return number if math.isfinite(number) else MISSING


def _path(value: Any) -> Any:
    if not isinstance(value, str | Path) or not str(value):
        return MISSING
    # A shell does not expand the ~ of `key=~/folder`.
    home = str(value) == "~" or str(value).startswith("~/")
    return Path(value).expanduser() if home else Path(value)
