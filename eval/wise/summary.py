"""WISE's numbers from judgements: the mean of each category and their weighted mean."""

from __future__ import annotations

from eval.results import BenchmarkResult
from eval.wise.judgements import Judgements
from eval.wise.versions import CATEGORIES, Version


def summarise(
    judgements: Judgements,
    version: Version,
    *,
    weighting: str,
    judge: str | None = None,
) -> BenchmarkResult:
    """Aggregate judgements.

    Args:
        judgements: One of every prompt, scored or not.
        version: Whose categories and weights.
        weighting: `official` or `bagel`.
        judge: The model that judged; `unknown` where nobody says.

    Raises:
        ValueError: no such weighting.
    """
    samples: dict[str, dict[str, tuple[float | None, ...]]] = {name: {} for name in CATEGORIES}
    for prompt_id, judgement in judgements.by_id.items():
        # Digits in front keep the file in the order of ids.
        samples[version.category(prompt_id)][f"{prompt_id:04}"] = (judgement.score,)
    return BenchmarkResult(
        benchmark="wise",
        variant={
            "version": version.name,
            "weighting": weighting,
            "judge": judge or "unknown",
            "scores": "fractions" if judgements.num_fractions and not version.aspects else "judged",
        },
        samples=samples,
        weights=version.weights(weighting),
        provenance={"unscored": dict(sorted(judgements.unscored.items()))},
    )
