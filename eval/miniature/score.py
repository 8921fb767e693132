"""Scoring pictures by looking at their pixels; a sample without a picture is unscored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.miniature.candidates import SearchFacts, search_facts, trajectories_of
from eval.miniature.kinds import kinds_of
from eval.miniature.line import SampleScore, ScoredPicture
from eval.miniature.process import observed
from eval.miniature.settings import MiniatureSample
from eval.search.best_of import NOT_VERIFIED, best
from staged.shapes.sight.pictures import DrawnPicture, pictures_of
from staged.trajectory import Trajectory

NOT_DRAWN = "not drawn"
NOT_FINITE = "not_finite"
"""How a trajectory fails whose numbers were none; see `staged.model.finite`."""


def score(
    samples: Sequence[MiniatureSample], trajectories: Mapping[str, Trajectory]
) -> tuple[SampleScore, ...]:
    """Score every sample, in order; what was not drawn is unscored."""
    return tuple(_scored(sample, trajectories) for sample in samples)


def _scored(sample: MiniatureSample, trajectories: Mapping[str, Trajectory]) -> SampleScore:
    trajectory, prompt = trajectories.get(sample.key), sample.prompt
    facts: dict[str, Any] = {
        "key": sample.key,
        "task": prompt.task,
        "prompt": prompt.text,
        "seed": sample.seed,
    }
    if trajectory is None:
        return SampleScore(
            correct=None, exact=None, reasons=(NOT_DRAWN,), kinds=(NOT_DRAWN,), **facts
        )
    if trajectory.prompt != prompt.text:
        raise ValueError(
            f"sample {sample.key} was drawn for {trajectory.prompt!r}, not for "
            f"{prompt.text!r}: prompts are sampled differently now; choose another --out"
        )
    pictures = pictures_of(trajectory, prompt.spec)
    facts |= {
        "pictures": tuple(_judged(picture) for picture in pictures),
        "num_flow_steps": trajectory.num_flow_steps,
        "text_tokens": int(trajectory.provenance.get("cost", {}).get("text_tokens", 0)),
        "planned": trajectory.last_plan is not None,
        "failure": str(trajectory.provenance.get("failure", "")),
        "process": tuple(observed(trajectory, prompt.spec, pictures)),
    }
    search = search_facts(trajectory, sample.key)
    if search is not None:
        each = [
            pictures_of(candidate, prompt.spec)
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


def _judged(picture: DrawnPicture) -> ScoredPicture:
    planned = picture.planned if picture.by_plan else None
    return ScoredPicture(
        round=picture.round,
        num_flow_steps=picture.num_flow_steps,
        correct=picture.whole.correct,
        exact=picture.whole.exact,
        by_plan=picture.by_plan,
        follows_plan=None if planned is None else planned.exact,
    )


def _best_so_far(
    search: SearchFacts, each: Sequence[Sequence[DrawnPicture]]
) -> tuple[ScoredPicture, ...]:
    """After each candidate, the last picture of the best-rated until then."""
    found: list[ScoredPicture] = []
    spent = 0
    for number, candidate in enumerate(search.candidates, 1):
        spent += candidate.num_flow_steps
        chosen = best([one.rating for one in search.candidates[:number]])
        if chosen is not None and each[chosen]:
            whole = each[chosen][-1].whole
            found.append(
                ScoredPicture(
                    round=1, num_flow_steps=spent, correct=whole.correct, exact=whole.exact
                )
            )
    return tuple(found)
