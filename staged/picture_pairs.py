"""Lines on pairs of pictures of which one is preferred: `"images": [A, B], "preferred": 0`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

PAIR_FIELDS: Final[Mapping[str, type]] = {"prompt": str, "images": list, "preferred": int}
"""What a line has, for `strict_json.read_records`."""


def read_pair(record: Mapping[str, Any], place: str) -> tuple[tuple[str, str], int]:
    """Read whose pictures a line is about, and which of them is preferred.

    Args:
        record: With `PAIR_FIELDS`.
        place: For messages.

    Returns:
        The two names as they stand there, and the place of the preferred one, 0 or 1.

    Raises:
        ValueError: There are not two, or none of them is preferred.
    """
    names, preferred = record["images"], record["preferred"]
    if len(names) != 2 or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{place}: images {names!r:.80}; expected two paths")
    if preferred not in (0, 1):
        raise ValueError(f"{place}: preferred is {preferred}; give 0 or 1")
    return (names[0], names[1]), preferred
