"""Scoring pictures by looking at their pixels; a sample without a picture is unscored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.miniature.settings import Sample
from staged.shapes.detect import detect
from staged.shapes.verdict import satisfied
from staged.trajectory import Trajectory

NOT_DRAWN = "not drawn"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A sample's score.

    Attributes:
        sample: What was asked for.
        correct: Everything asked for is there (GenEval's rule); None where unscored.
        exact: And nothing else is.
        reasons: Faults, surplus last; or why there is no score.
        num_sketches: Pictures drawn on the way.
        num_flow_steps: Network evaluations.
        text_tokens: Written on the way.
        failure: Why the trajectory did not come to its end; empty where it did. Its last picture
            is scored all the same: it is what a user would get.
    """

    sample: Sample
    correct: bool | None
    exact: bool | None
    reasons: tuple[str, ...]
    num_sketches: int = 0
    num_flow_steps: int = 0
    text_tokens: int = 0
    failure: str = ""

    def as_line(self) -> dict[str, Any]:
        """Return the line of `samples.jsonl`."""
        line = {k: v for k, v in vars(self).items() if k not in ("sample", "reasons")}
        sample = self.sample
        return {
            "key": sample.key,
            "task": sample.prompt.task,
            "prompt": sample.prompt.text,
            "seed": sample.seed,
            "reasons": list(self.reasons),
            **line,
        }


def score(samples: Sequence[Sample], trajectories: Mapping[str, Trajectory]) -> tuple[Scored, ...]:
    """Score every sample, in order; what was not drawn is unscored."""
    return tuple(_scored(sample, trajectories.get(sample.key)) for sample in samples)


def _scored(sample: Sample, trajectory: Trajectory | None) -> Scored:
    if trajectory is None:
        return Scored(sample=sample, correct=None, exact=None, reasons=(NOT_DRAWN,))
    if trajectory.prompt != sample.prompt.text:
        raise ValueError(
            f"sample {sample.key} was drawn for {trajectory.prompt!r}, not for "
            f"{sample.prompt.text!r}: prompts are sampled differently now; choose another --out"
        )
    facts: dict[str, Any] = {
        "sample": sample,
        "num_flow_steps": trajectory.num_flow_steps,
        "num_sketches": len(trajectory.images) - len(trajectory.inputs),
        "text_tokens": int(trajectory.provenance.get("cost", {}).get("text_tokens", 0)),
        "failure": str(trajectory.provenance.get("failure", "")),
    }
    if trajectory.last_sketch is None:
        reason = f"{NOT_DRAWN}: {facts['failure'] or 'no sketch'}"
        return Scored(correct=None, exact=None, reasons=(reason,), **facts)
    verdict = satisfied(sample.prompt.spec, detect(trajectory.last_sketch.image.array()))
    return Scored(correct=verdict.correct, exact=verdict.exact, reasons=verdict.reasons, **facts)
