"""What the two versions of WISE are: categories by prompt id, weights, the judge.

Sources: README and `Calculate.py` of PKU-YuanGroup/WISE (legacy), `calculate_verified.py` and the
leaderboard of the same repository (verified); `eval/gen/wise/cal_score.py` of BAGEL for its
unweighted mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CATEGORIES = ("culture", "time", "space", "biology", "physics", "chemistry")
NUM_PROMPTS = 1000
WEIGHTINGS = ("official", "bagel")


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of the benchmark.

    Attributes:
        name: `legacy` or `verified`.
        last_ids: The last prompt id of each category; the first begins at 1.
        official_weights: Of the categories in the overall score.
        judge: The model that the published scores were judged by, at temperature 0.
        aspects: Whether the judge gives consistency, realism and aesthetic quality, 0 to 2 each;
            else it gives 0 or 1.
    """

    name: str
    last_ids: tuple[int, ...]
    official_weights: tuple[float, ...]
    judge: str
    aspects: bool

    def category(self, prompt_id: int) -> str:
        """Return the category of a prompt.

        Raises:
            ValueError: no such prompt.
        """
        if not 1 <= prompt_id <= NUM_PROMPTS:
            raise ValueError(f"prompt_id {prompt_id}; expected 1 to {NUM_PROMPTS}")
        return next(
            name for name, last in zip(CATEGORIES, self.last_ids, strict=True) if prompt_id <= last
        )

    def weights(self, weighting: str) -> Mapping[str, float]:
        """Return the weight of each category in the overall score.

        Args:
            weighting: `official`, or `bagel` for the plain mean of the six categories that BAGEL's
                script takes (its published 0.70 is 0.717 by the official weights).

        Raises:
            ValueError: no such weighting.
        """
        if weighting == "official":
            return dict(zip(CATEGORIES, self.official_weights, strict=True))
        if weighting == "bagel":
            return dict.fromkeys(CATEGORIES, 1 / len(CATEGORIES))
        raise ValueError(f"weighting {weighting!r}; expected one of {', '.join(WEIGHTINGS)}")


VERSIONS = {
    "legacy": Version(
        name="legacy",
        last_ids=(400, 567, 700, 800, 900, 1000),
        official_weights=(0.4, 0.167, 0.133, 0.1, 0.1, 0.1),
        judge="gpt-4o-2024-05-13",
        aspects=True,
    ),
    "verified": Version(
        name="verified",
        last_ids=(400, 520, 640, 760, 880, 1000),
        official_weights=(0.4, 0.12, 0.12, 0.12, 0.12, 0.12),
        judge="Qwen3.5-35B-A3B",
        aspects=False,
    ),
}
