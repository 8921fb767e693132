"""The answer that a page begins with: how the runs compare, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

from eval.compare import compare
from eval.report.runs import Run
from eval.report.scores import MIN_CLUSTERS, cell
from eval.results import OVERALL
from eval.statistics import Estimate
from staged.report import Claim, Claims
from staged.report.figures import Tone
from staged.report.tables import interval, number

DIGITS = 2


def answer(runs: Sequence[Run], *, across_variants: bool = False) -> Claims:
    """Say how each run fares, or how each of the others compares with the first.

    Raises:
        ValueError: the runs cannot be compared.
    """
    first, *others = runs
    if not others:
        return Claims(claims=[Claim(text=_alone(first), tone="accent", detail=_rests(first))])
    claims = []
    for run in others:
        found = compare(run.result, first.result, across_variants=across_variants)
        text, tone = in_words(run.name, first.name, found.estimates[OVERALL])
        detail = f"Overall: {_score(first)}, {_score(run)}. {_rests(run)}"
        claims.append(Claim(text=text, tone=tone, detail=detail))
    return Claims(claims=claims)


def in_words(run: str, reference: str, gain: Estimate) -> tuple[str, Tone]:
    """Say a difference in a sentence, and what it means.

    Args:
        run: The one whose gain it is.
        reference: The other.
        gain: How much higher `run` scores; clear where its 95% interval leaves out zero.
    """
    if gain.value is None:
        return f"{run} and {reference} cannot be compared: a part has no score in both", "quiet"
    shown = cell(gain)
    ends = interval(shown, DIGITS, signed=True)
    by = number(abs(gain.value), DIGITS)
    same = by == "0"
    said = "scores the same as" if same else "is better than" if gain.value > 0 else "is worse than"
    text = f"{run} {said} {reference}" + ("" if same else f" by {by}")
    if shown.low is None or shown.high is None:
        return f"{text}; too few prompts ({gain.num_clusters}) to say how sure that is.", "quiet"
    clear = shown.low > 0 or shown.high < 0
    text += f" {ends}, {'clearly' if clear else 'not clearly'}."
    return text, "quiet" if not clear else "good" if gain.value > 0 else "bad"


def _alone(run: Run) -> str:
    overall = run.result.overall
    if overall.value is None:
        return f"{run.name} has no overall score: a part has none."
    ends = interval(cell(overall), DIGITS)
    few = f"; too few prompts ({overall.num_clusters}) to say how sure that is"
    return f"{run.name} scores {number(overall.value, DIGITS)}{f' {ends}' if ends else few}."


def _score(run: Run) -> str:
    value = run.result.overall.value
    return f"{run.name} {'not measured' if value is None else number(value, DIGITS)}"


def _rests(run: Run) -> str:
    overall = run.result.overall
    said = f"{overall.n} scored images of {overall.num_clusters} prompts"
    if overall.unscored:
        said += f", {overall.unscored} unscored"
    return (
        f"{said}. Brackets are 95% intervals, shown from {MIN_CLUSTERS} prompts on; a difference "
        "is clear where its interval leaves out zero."
    )
