"""What a server remembers of a trajectory beside its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from staged import strict_json

RUNNING: Final = "running"
COMPLETE: Final = "complete"
FAILED: Final = "failed"
MAX_JSON_BYTES: Final = 2**26
"""Of one value in the database."""
FIELDS: Final = (
    "id, client, kind, created_s, start, words, seed, asked, parent, num_given, status, reason"
)
"""Columns of the table of trajectories."""
_JSON: Final = ("start", "asked")


@dataclass(frozen=True, kw_only=True)
class HistoryRecord:
    """One trajectory that was asked for.

    Attributes:
        id: Its name.
        client: Whose it is.
        kind: Of the request: `trajectory`, `image`, `edit` or `chat`.
        created_s: When it was asked for, in seconds since 1970.
        start: The trajectory before its first step, as JSON.
        words: The prompt as it was given.
        seed: Of everything drawn at random.
        asked: Settings that the request named.
        parent: The trajectory that it was forked from.
        num_given: Steps that it was given, from its parent and by hand.
        status: `running` (or waiting), `complete` or `failed`.
        reason: Why it failed.
    """

    id: str
    client: str
    kind: str
    created_s: float
    start: Mapping[str, Any]
    words: str
    seed: int
    asked: Mapping[str, Any]
    parent: str | None = None
    num_given: int = 0
    status: str = RUNNING
    reason: str | None = None

    def row(self) -> tuple[Any, ...]:
        """Values in the order of `FIELDS`, as the database keeps them."""
        values = {name: getattr(self, name) for name in FIELDS.split(", ")}
        for name in _JSON:
            values[name] = strict_json.dumps(values[name])
        return tuple(values.values())

    @classmethod
    def of(cls, row: Sequence[Any]) -> Self:
        """Read what `row` gave.

        Raises:
            ValueError: It is damaged.
        """
        values = dict(zip(FIELDS.split(", "), row, strict=True))
        for name in _JSON:
            values[name] = strict_json.loads(
                values[name], place=f"history.db: {name}", max_bytes=MAX_JSON_BYTES
            )
        return cls(**values)
