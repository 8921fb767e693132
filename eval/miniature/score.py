"""Scoring pictures by looking at their pixels; a sample without a picture is unscored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eval.miniature.candidates import SearchFacts, search_facts, trajectories_of
from eval.miniature.kinds import kinds_of
from eval.miniature.pictures import DrawnPicture, pictures_of
from eval.miniature.settings import MiniatureSample
from eval.search.best_of import NOT_VERIFIED, best
from staged.trajectory import Trajectory

NOT_DRAWN = "not drawn"
NOT_FINITE = "not_finite"
"""How a trajectory fails whose numbers were none; see `staged.model.finite`."""


@dataclass(frozen=True, kw_only=True)
class SampleScore:
    """A sample's score.

    Attributes:
        sample: What was asked for.
        correct: Everything asked for is there (GenEval's rule); None where unscored.
        exact: And nothing else is.
        reasons: Faults, surplus last; or why there is no score.
        kinds: Of the faults that make it wrong; of a correct one, of what is there beside.
        pictures: Those drawn on the way; of a search the best so far after each candidate, at
            what all until then had cost.
        num_flow_steps: Network evaluations, of all candidates where there were several.
        text_tokens: Written on the way.
        failure: Why the trajectory did not come to its end; empty where it did. Its last picture
            is scored all the same: it is what a user would get. Only numbers that are not finite
            leave nothing to score.
        candidates: Whether each candidate of a search is correct, None where it is no picture;
            empty without a search.
    """

    sample: MiniatureSample
    correct: bool | None
    exact: bool | None
    reasons: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    pictures: tuple[DrawnPicture, ...] = ()
    num_flow_steps: int = 0
    text_tokens: int = 0
    failure: str = ""
    candidates: tuple[bool | None, ...] = ()

    def as_line(self) -> dict[str, Any]:
        """Return the line of `samples.jsonl`."""
        sample = self.sample
        return {
            "key": sample.key,
            "task": sample.prompt.task,
            "prompt": sample.prompt.text,
            "seed": sample.seed,
            "correct": self.correct,
            "exact": self.exact,
            "reasons": list(self.reasons),
            "kinds": list(self.kinds),
            "pictures": [picture.as_dict() for picture in self.pictures],
            "num_sketches": self.num_sketches,
            "num_flow_steps": self.num_flow_steps,
            "text_tokens": self.text_tokens,
            "failure": self.failure,
            **({"candidates": list(self.candidates)} if self.candidates else {}),
        }

    @property
    def num_sketches(self) -> int:
        """How many pictures were drawn on the way."""
        return len(self.pictures)

    @property
    def any_correct(self) -> bool | None:
        """Whether a better choice would have been correct; None without a picture to choose."""
        seen = [correct for correct in self.candidates if correct is not None]
        return any(seen) if seen else None


def score(
    samples: Sequence[MiniatureSample], trajectories: Mapping[str, Trajectory]
) -> tuple[SampleScore, ...]:
    """Score every sample, in order; what was not drawn is unscored."""
    return tuple(_scored(sample, trajectories) for sample in samples)


def _scored(sample: MiniatureSample, trajectories: Mapping[str, Trajectory]) -> SampleScore:
    trajectory = trajectories.get(sample.key)
    if trajectory is None:
        return SampleScore(
            sample=sample, correct=None, exact=None, reasons=(NOT_DRAWN,), kinds=(NOT_DRAWN,)
        )
    if trajectory.prompt != sample.prompt.text:
        raise ValueError(
            f"sample {sample.key} was drawn for {trajectory.prompt!r}, not for "
            f"{sample.prompt.text!r}: prompts are sampled differently now; choose another --out"
        )
    pictures = pictures_of(trajectory, sample.prompt.spec)
    facts: dict[str, Any] = {
        "sample": sample,
        "pictures": pictures,
        "num_flow_steps": trajectory.num_flow_steps,
        "text_tokens": int(trajectory.provenance.get("cost", {}).get("text_tokens", 0)),
        "failure": str(trajectory.provenance.get("failure", "")),
    }
    search = search_facts(trajectory, sample.key)
    if search is not None:
        each = [
            pictures_of(candidate, sample.prompt.spec)
            for candidate in trajectories_of(sample.key, search, trajectories)
        ]
        facts["pictures"] = _best_so_far(search, each)
        facts["num_flow_steps"] = search.num_flow_steps
        facts["candidates"] = tuple(p[-1].whole.correct if p else None for p in each)
    if not pictures or facts["failure"] in (NOT_FINITE, NOT_VERIFIED):
        reason = f"{NOT_DRAWN}: {facts['failure'] or 'no sketch'}"
        return SampleScore(correct=None, exact=None, reasons=(reason,), kinds=(NOT_DRAWN,), **facts)
    verdict = pictures[-1].whole
    return SampleScore(
        correct=verdict.correct,
        exact=verdict.exact,
        reasons=verdict.reasons,
        kinds=kinds_of(verdict.faults or verdict.surplus),
        **facts,
    )


def _best_so_far(
    search: SearchFacts, each: Sequence[Sequence[DrawnPicture]]
) -> tuple[DrawnPicture, ...]:
    """After each candidate, the last picture of the best-rated until then."""
    found: list[DrawnPicture] = []
    spent = 0
    for number, candidate in enumerate(search.candidates, 1):
        spent += candidate.num_flow_steps
        chosen = best([one.rating for one in search.candidates[:number]])
        if chosen is not None and each[chosen]:
            picture = replace(each[chosen][-1], num_flow_steps=spent, round=1, by_plan=False)
            found.append(picture)
    return tuple(found)
