"""Ways in which real language models let their callers down, at chosen rates, seeded."""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal, get_args

from staged.ranges import check_range, check_rates

Misdeed = Literal[
    "rate_limit",
    "server_error",
    "slow",
    "refusal",
    "content_filter",
    "truncated",
    "wrong_json",
    "wrong_schema",
    "contradiction",
]
SHAPES_LMM = "shapes-lmm-1"
"""What the miniature world's language model is called at an endpoint."""
MISDEEDS: tuple[Misdeed, ...] = get_args(Misdeed)


@dataclass(frozen=True, kw_only=True)
class Misbehaviour:
    """Rates in [0, 1], whose sum is at most 1: what happens to a share of the attempts."""

    rate_limit: float = 0.0
    """429 with a Retry-After."""
    server_error: float = 0.0
    """500."""
    slow: float = 0.0
    """An answer that comes after `slow_s`."""
    refusal: float = 0.0
    """`refusal` in place of content."""
    content_filter: float = 0.0
    """No content, and `finish_reason` says why."""
    truncated: float = 0.0
    """Half of the answer, and `finish_reason` is `length`."""
    wrong_json: float = 0.0
    """Text that is no JSON."""
    wrong_schema: float = 0.0
    """JSON of another schema."""
    contradiction: float = 0.0
    """A judgement turned round, which looks as good as any."""
    expired_batch: float = 0.0
    """Share of batches that expire when half of their requests are answered."""
    failed_batch: float = 0.0
    """Share of batches that fail as a whole, as more than is allowed at a time."""
    retry_after_s: float = 0.0
    """What a 429 asks for."""
    slow_s: float = 5.0
    """How slow slow is."""
    seed: int = 0
    """Which attempts are hit: the same ones each time."""

    def __post_init__(self) -> None:
        """Check the rates."""
        check_rates(self, *MISDEEDS)
        check_range(self, "expired_batch", "failed_batch", minimum=0, maximum=1)

    def choose(self, body: object, retry: str) -> Misdeed | None:
        """Choose what happens to one attempt: by its content and number, not by when it comes.

        So an interrupted job meets the same misdeeds again as one that was not interrupted.
        """
        draw = self._draw(body, retry)
        for misdeed in MISDEEDS:
            draw -= getattr(self, misdeed)
            if draw < 0:
                return misdeed
        return None

    def end_of_batch(self, number: int) -> Literal["completed", "expired", "failed"]:
        """Choose how the n-th batch ends."""
        draw = self._draw("batch", str(number))
        if draw < self.expired_batch:
            return "expired"
        return "failed" if draw < self.expired_batch + self.failed_batch else "completed"

    def _draw(self, body: object, retry: str) -> float:
        text = json.dumps([self.seed, body, retry], sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
