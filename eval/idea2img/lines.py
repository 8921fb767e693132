"""What is compared: pictures that differ in who wrote the prompt, and in how many there were.

    manual          one picture of the idea as a person tells it
    manual_best     the best of as many pictures of it as an exploration draws
    first_prompt    one picture of the first prompt that the language model writes
    first           the best of its first round
    at_once         the best of as many first prompts as an exploration has, without any feedback
    refined         what the exploration chooses in the end

`manual`, `first` and `refined` are the lines of the paper's study (arXiv 2310.08541). The others
tell what they gain apart: `manual_best` and `at_once` draw exactly as many pictures as `refined`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from eval.results import BenchmarkResult
from staged.ideas.exploration import Draft, Exploration
from staged.shapes.sight.detect import detect
from staged.shapes.sight.wishes import fulfilled, vision_of

LINES: Final = {
    "manual": "own words",
    "manual_best": "own words, best of as many",
    "first_prompt": "first prompt",
    "first": "first round",
    "at_once": "as many prompts at once",
    "refined": "refined",
}
"""Lines in the order of the table, in words."""
BENCHMARK: Final = "idea2img"


def pictures(explored: Exploration, at_once: Exploration | None) -> dict[str, Draft | None]:
    """The picture of each line; None where it was not drawn.

    Args:
        explored: By rounds, with a control of as many pictures.
        at_once: The same idea in one round of as many prompts.
    """
    first = explored.rounds[0].drafts[0] if explored.rounds else None
    control = explored.control
    return {
        "manual": explored.manual,
        "manual_best": control.winner if control else None,
        "first_prompt": first if first and first.image else None,
        "first": explored.first,
        "at_once": at_once.refined if at_once else None,
        "refined": explored.refined,
    }


def counts(explored: Exploration, at_once: Exploration | None) -> dict[str, int]:
    """How many pictures each line has drawn."""
    return {
        "manual": 1,
        "manual_best": len(explored.control.drafts) if explored.control else 0,
        "first_prompt": 1,
        "first": len(explored.rounds[0].drafts) if explored.rounds else 0,
        "at_once": at_once.num_drafts if at_once else 0,
        "refined": explored.num_drafts,
    }


def results_of(
    kinds: Sequence[str],
    explored: Sequence[Exploration],
    at_once: Sequence[Exploration | None],
    *,
    variant: Mapping[str, str],
) -> dict[str, BenchmarkResult]:
    """Score every line.

    Args:
        kinds: Kind of each exploration's idea.
        explored: Explorations by rounds.
        at_once: Of the same ideas, in the same order.
        variant: What the numbers depend on.

    Returns:
        By line, those of which there are pictures: a result whose samples are ideas, 1.0 where the
        detector finds what is wanted, None where no picture came.
    """
    named = list(dict.fromkeys(kinds))
    drawn = [line for line in LINES if line != "at_once" or any(at_once)]
    scores: dict[str, dict[str, dict[str, tuple[float | None, ...]]]] = {
        line: {kind: {} for kind in named} for line in drawn
    }
    for kind, one, other in zip(kinds, explored, at_once, strict=True):
        found = pictures(one, other)
        for line in drawn:
            of_idea = scores[line][kind]
            text = one.idea.text
            of_idea[text] = (*of_idea.get(text, ()), score(one, found[line]))
    weights = dict.fromkeys(named, 1 / len(named))
    return {
        line: BenchmarkResult(
            benchmark=BENCHMARK, variant=variant, samples=parts, weights=weights, run=LINES[line]
        )
        for line, parts in scores.items()
    }


def score(exploration: Exploration, draft: Draft | None) -> float | None:
    """Whether a picture shows the exploration's idea, by the detector; None without a picture."""
    if draft is None or draft.image is None:
        return None
    found = fulfilled(vision_of(exploration.idea), detect(draft.image.array()))
    return float(found.correct)
