"""From scores to rewards, from rewards to pairs: no model, no files.

Each candidate's picture is compared with the original prompt's under every rubric, several times,
in both orders. A reward is the sum over the rubrics of the mean score of the candidate's picture
(arXiv 2505.16763, section 3.3); how much better aligned it is than the original's picture stands
beside it, as a gate: beauty alone wins nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from train.self_reward.settings import Rubric

CLOSE = 1e-9
"""Means of the same scores in another order differ by less."""


@dataclass(frozen=True, kw_only=True)
class ScoredPair:
    """One answer about an original's and a candidate's picture.

    Attributes:
        original: Score of the original prompt's picture, 0 to 5, wherever it stood.
        candidate: Score of the candidate's.
    """

    original: int
    candidate: int


@dataclass(frozen=True, kw_only=True)
class Reward:
    """What a candidate is worth.

    Attributes:
        total: Sum over rubrics of the mean score of its picture; None where a rubric has no valid
            answer: unscored is not zero.
        alignment_gain: Mean score of its picture minus that of the original's under `alignment`;
            None where nobody said.
        by_rubric: The means that `total` sums.
        num_answers: Valid answers in all.
    """

    total: float | None
    alignment_gain: float | None
    by_rubric: Mapping[Rubric, float]
    num_answers: int


@dataclass(frozen=True, kw_only=True)
class PromptChoice:
    """The candidate to learn from, and the one to unlearn, by their numbers."""

    chosen: int
    rejected: int


def reward_of(answers: Mapping[Rubric, Sequence[ScoredPair]]) -> Reward:
    """Average what was said of a candidate.

    Args:
        answers: The valid answers under each rubric that was asked about, in both orders.
    """
    means = {rubric: fmean(a.candidate for a in said) for rubric, said in answers.items() if said}
    aligned = answers.get("alignment")
    return Reward(
        total=sum(means.values()) if answers and len(means) == len(answers) else None,
        alignment_gain=fmean(a.candidate - a.original for a in aligned) if aligned else None,
        by_rubric=means,
        num_answers=sum(len(said) for said in answers.values()),
    )


def choose(
    prompts: Sequence[str],
    rewards: Sequence[Reward],
    *,
    alignment_tolerance: float | None,
    dropped: Counter[str] | None = None,
) -> PromptChoice | None:
    """Choose the best candidate that passes the gate, and the worst of all.

    Args:
        prompts: The candidates.
        rewards: Of each.
        alignment_tolerance: How much alignment the chosen one may lose; None switches the gate off.
        dropped: Told why there is no pair.

    Returns:
        None where fewer than two are scored, none passes the gate, or the two are worth the same or
        say the same.
    """
    why = dropped if dropped is not None else Counter()
    totals = {i: one.total for i, one in enumerate(rewards) if one.total is not None}
    if len(totals) < 2:
        why["unscored"] += 1
        return None
    chosen = best_of(rewards, alignment_tolerance)
    if chosen is None:
        why["alignment"] += 1
        return None
    rejected = min(totals, key=lambda i: totals[i])
    if totals[chosen] - totals[rejected] <= CLOSE or prompts[chosen] == prompts[rejected]:
        why["tie"] += 1
        return None
    return PromptChoice(chosen=chosen, rejected=rejected)


def best_of(rewards: Sequence[Reward], alignment_tolerance: float | None) -> int | None:
    """Choose the best candidate that is scored and passes the gate; None where none does."""
    totals = {
        i: one.total
        for i, one in enumerate(rewards)
        if one.total is not None and _passes(one, alignment_tolerance)
    }
    # The first of equals, so that the order of candidates decides and nothing else.
    return max(totals, key=lambda i: totals[i], default=None)


def choose_answers(assessments: Sequence[float | None]) -> PromptChoice | None:
    """Choose the answers that were assessed best and worst; None where they are assessed alike.

    Args:
        assessments: Mean assessment of each answer, in [1, 5]; None where there is none.
    """
    known = {i: one for i, one in enumerate(assessments) if one is not None}
    if len(known) < 2:
        return None
    best, worst = max(known, key=lambda i: known[i]), min(known, key=lambda i: known[i])
    if known[best] - known[worst] <= CLOSE:
        return None
    return PromptChoice(chosen=best, rejected=worst)


def _passes(reward: Reward, tolerance: float | None) -> bool:
    if tolerance is None:
        return True
    return reward.alignment_gain is not None and reward.alignment_gain >= -tolerance - CLOSE
