"""How a job stands, in numbers: what a command prints of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class JobSummary:
    """How a job stands.

    Attributes:
        accepted: Samples in the shards.
        rejected: Units that a filter ended.
        failed: Units that a service ended.
        reasons: Stage -> reason -> number, of those two.
        examples: (stage, reason) -> what a service said of one of them.
        unfinished: Units that are still to be done.
        new: Units that this process ended now.
        stopped: The limit that stopped the job, if one did.
    """

    accepted: int = 0
    rejected: int = 0
    failed: int = 0
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    examples: Mapping[tuple[str, str], str] = field(default_factory=dict)
    unfinished: int = 0
    stopped: str = ""
    new: int = field(default=0, compare=False)
