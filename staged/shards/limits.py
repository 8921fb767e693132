"""What a reader accepts, and how it says that something is not acceptable."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

from staged import images
from staged.ranges import check_range
from staged.trajectory import MAX_INPUTS, MAX_JSON_BYTES, MAX_STEPS

Reason = Literal[
    "missing shard",
    "truncated",
    "damaged tar",
    "bad name",
    "too large",
    "missing member",
    "unexpected member",
    "bad trajectory",
    "bad image",
    "duplicate key",
    "stale offsets",
]
OnError = Literal["raise", "skip"]

KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)
"""Sample keys: short enough for a plain tar header with any image name of ours behind them."""
MAX_MEMBERS: Final = 1 + MAX_INPUTS + MAX_STEPS


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds that hold before anything is decoded.

    Attributes:
        json_bytes: Longest trajectory.
        image_bytes: Longest encoded image.
        pixels: Most pixels of an image.
        sample_bytes: Longest sample, all members together.
    """

    json_bytes: int = MAX_JSON_BYTES
    image_bytes: int = images.MAX_IMAGE_BYTES
    pixels: int = images.MAX_PIXELS
    sample_bytes: int = 512 * 2**20

    def __post_init__(self) -> None:
        """Check that every bound is positive."""
        check_range(self, *vars(self), minimum=1)


class ShardError(ValueError):
    """A shard, or a sample in it, cannot be read.

    Attributes:
        shard: File name of the shard.
        key: The sample; the last one seen where the tar itself is damaged; None at its start.
        reason: Countable.
    """

    def __init__(self, shard: str, key: str | None, reason: Reason, detail: str) -> None:
        """Name the place."""
        place = shard if key is None else f"{shard}, sample {key!r:.100}"
        super().__init__(f"{place}: {reason}: {detail}")
        self.shard = shard
        self.key = key
        self.reason = reason


@dataclass(kw_only=True)
class Skipped:
    """What a reader left out.

    Attributes:
        counts: Reason -> number.
        examples: The first messages.
        max_examples: How many to keep.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    max_examples: int = 20

    def add(self, error: ShardError) -> None:
        """Count one."""
        self.counts[error.reason] += 1
        if len(self.examples) < self.max_examples:
            self.examples.append(str(error))
