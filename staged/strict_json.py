"""JSON that may come from anywhere: bounded, without surprises, errors that name the place.

Python's `json` accepts duplicate keys, `NaN`, nesting until the stack ends and integers of any
size. None of that belongs in data that others read, so everything here refuses it.
"""

import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from staged.lines import read_lines, without_mark

MAX_DEPTH = 16
"""Deepest nesting of free-form JSON (provenance, scene graphs)."""
MAX_ITEMS = 20_000
"""Most values, counted over the whole tree, of free-form JSON."""
MAX_INT = 2**63 - 1
"""Largest magnitude of an integer: what every reader of JSON can hold in 64 bits."""


def dumps(value: Any) -> str:
    """Serialise canonically: sorted keys, no spaces, UTF-8 text, no NaN.

    Raises:
        ValueError: `value` holds NaN or an infinity.
    """
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )


def dump_lines(values: Iterable[Any]) -> bytes:
    """Serialise as lines of UTF-8, one each; see `dumps`."""
    return b"".join(dumps(value).encode() + b"\n" for value in values)


def loads(text: str | bytes, *, place: str, max_bytes: int) -> Any:
    """Parse JSON text after bounding its size.

    Args:
        text: JSON as text, or as UTF-8 bytes, with or without a byte-order mark.
        place: What is being read, for error messages.
        max_bytes: Longest accepted input (characters, when `text` is a str).

    Raises:
        ValueError: too long, not UTF-8, not JSON, duplicate keys, NaN, or nested too deeply.
    """
    if len(text) > max_bytes:
        raise ValueError(f"{place}: exceeds the limit of {max_bytes} bytes")
    text = without_mark(text, place) if isinstance(text, bytes) else text
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(f"{place}: JSON is nested too deeply") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError included
        raise ValueError(f"{place}: not valid JSON: {error}") from None


def read(path: Path, *, max_bytes: int, missing: str | None = None) -> Any:
    """Read a file of one JSON value; see `loads`.

    Args:
        path: The file.
        max_bytes: Largest size.
        missing: Said after "PATH is missing" where it is; by default an `OSError` says so.

    Raises:
        ValueError: missing, too large, or no JSON as described above; names the file.
        OSError: the file cannot be read.
    """
    if missing is not None and not path.is_file():
        raise ValueError(f"{path} is missing{missing}")
    with path.open("rb") as file:
        return loads(file.read(max_bytes + 1), place=str(path), max_bytes=max_bytes)


def loads_object(text: str | bytes, *, place: str, max_bytes: int) -> dict[str, Any]:
    """Parse JSON text that is one object of whatever keys; see `loads`."""
    return record(loads(text, place=place, max_bytes=max_bytes), place, {}, others=True)


def read_object(path: Path, *, max_bytes: int, missing: str | None = None) -> dict[str, Any]:
    """Read a file of one JSON object of whatever keys; see `read`."""
    value = read(path, max_bytes=max_bytes, missing=missing)
    return record(value, str(path), {}, others=True)


def read_records(
    path: Path,
    required: Mapping[str, type],
    optional: Mapping[str, type] | None = None,
    *,
    max_bytes: int,
    others: bool = False,
    whole: bool = False,
) -> Iterator[tuple[dict[str, Any], str]]:
    """Read a file of JSON lines, an object each.

    Args:
        path: The file.
        required: As in `record`.
        optional: As in `record`.
        max_bytes: Longest line.
        others: As in `record`.
        whole: Leave out a last line without an end: of a write that was cut off.

    Yields:
        Each object, with its place for messages.

    Raises:
        ValueError: a line is none, or has other fields; names the place.
        OSError: the file cannot be read.
    """
    for content, place in read_lines(path, max_bytes=max_bytes, whole=whole):
        value = loads(content, place=place, max_bytes=max_bytes)
        yield record(value, place, required, optional, others=others), place


def checked(value: Any, place: str, *, max_items: int = MAX_ITEMS) -> Any:
    """Copy free-form JSON, checking that a round trip through text gives it back unchanged.

    Raises:
        ValueError: a type JSON lacks (tuples and non-text keys included), a number that is not
            finite or not 64-bit, a lone surrogate, or a tree that is too deep or too large.
    """
    remaining = max_items

    def copy(node: Any, where: str, depth: int) -> Any:
        nonlocal remaining
        remaining -= 1
        if remaining < 0:
            raise ValueError(f"{place}: more than {max_items} JSON values")
        if depth > MAX_DEPTH:
            raise ValueError(f"{where}: JSON nested more than {MAX_DEPTH} deep")
        if type(node) is dict:
            return {
                unicode_text(key, f"key of {where}"): copy(item, f"{where}.{key}", depth + 1)
                for key, item in node.items()
            }
        if type(node) is list:
            return [copy(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(node)]
        if type(node) is str:
            return unicode_text(node, where)
        if node is None or type(node) is bool:
            return node
        if type(node) is int and abs(node) <= MAX_INT:
            return node
        if type(node) is float and math.isfinite(node):
            return node
        raise ValueError(
            f"{where}: {node!r:.80} ({type(node).__name__}) is not plain JSON; "
            "use dict, list, str, bool, None, a 64-bit int or a finite float"
        )

    return copy(value, place, 0)


def record(
    value: Any,
    place: str,
    required: Mapping[str, type],
    optional: Mapping[str, type] | None = None,
    *,
    others: bool = False,
) -> dict[str, Any]:
    """Check one JSON object against its field types and return it.

    `float` accepts integers too; `bool` and `int` are never mistaken for one another. Optional
    fields may be absent or null.

    Args:
        value: Decoded JSON.
        place: What is being read, for error messages.
        required: Types of fields that must be there.
        optional: Types of those that may be.
        others: Pass over further fields, save those that may be an optional one misspelt; a
            required one would be missed.

    Raises:
        ValueError: not an object, an unknown, missing or wrongly typed field.
    """
    optional = optional or {}
    if type(value) is not dict:
        raise ValueError(f"{place}: expected an object, got {type(value).__name__}")
    for key in value:
        if key not in required and key not in optional:
            meant = optional.keys() - value.keys() if others else [*required, *optional]
            if others and not meant:
                continue  # nothing to resemble, and to look for it takes longer than to parse
            near = difflib.get_close_matches(str(key), meant, n=1, cutoff=0.8 if others else 0.6)
            if others and not near:
                continue
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{place}: unknown key {key!r}{hint}")
    for key, expected in {**required, **optional}.items():
        if key not in value:
            if key in required:
                raise ValueError(f"{place}: missing key {key!r}")
            continue
        found = value[key]
        if found is None and key in optional:
            continue
        if type(found) is not expected and not (expected is float and type(found) is int):
            raise ValueError(
                f"{place}.{key}: expected {expected.__name__}, got {type(found).__name__}"
            )
    return value


def unicode_text(value: Any, place: str) -> str:
    """Return `value` if it is text that UTF-8 can carry.

    Raises:
        ValueError: not a str, or it holds a lone surrogate.
    """
    if type(value) is not str:
        raise ValueError(f"{place}: expected text, got {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{place}: not valid Unicode at character {error.start}") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"duplicate key {key!r}")
        result[key] = value
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
