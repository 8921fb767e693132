"""How the steps went: figures of the process metrics that a result carries.

Everything here is drawn from estimates in result files, so nothing is looked at again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from eval.miniature.kinds import KINDS
from eval.report.runs import Run
from eval.report.scores import MIN_CLUSTERS, cell, ends, named_rows
from eval.statistics import Estimate
from staged.report import Cell, Curve, Dots, Row, Section, Series, Stacks, Table

Also = Mapping[str, Estimate]

_TARGETS = {"plan": "plans", "sketch": "sketches"}
_ROUND = re.compile(r"round ([0-9]+)/correct")
_FOLLOWED = re.compile(r"round ([0-9]+)/follows plan")
_BUDGET = re.compile(r"within ([0-9]+) flow steps/correct")
_STEPS = {
    "plan/right": "last plans that ask for exactly what the prompt does",
    "plan/consistent": "plans that contradict nothing",
    "plan/instruction fits": "instructions that fit their plan",
    "sketch/follows plan": "sketches that show exactly what was planned",
    "inspect plan/over-inspection": "plans refused for what is still to come",
    "inspect sketch/over-inspection": "sketches refused for what is not planned yet",
    "stop/right": "decisions to stop or go on that were right",
    "stop/stopped when right": "stopped, of right pictures",
    "stop/went on when wrong": "went on, of wrong pictures",
    "untouched/kept": "untouched objects that stayed",
}
_SHIFT = "untouched/shift px"
_BARS = f"Bars are 95% intervals; what has none rests on fewer than {MIN_CLUSTERS} prompts."


def process_sections(runs: Sequence[Run]) -> list[Section]:
    """Show how the steps of each run went; nothing where there were none."""
    return [
        *flow_step_sections(runs),
        *round_sections(runs),
        *(section for run in runs for section in inspection_sections(run)),
        *refinement_sections(runs),
        *_steps(runs),
    ]


def flow_step_sections(runs: Sequence[Run]) -> Iterator[Curve]:
    """Show the newest pictures when no more flow steps had been spent."""
    series = [
        _series(run.name, run.result.also, _BUDGET)
        for run in runs
        if any(map(_BUDGET.fullmatch, run.result.also))
    ]
    if series:
        last = max(x for each in series for x, _ in each.points)
        yield Curve(
            title="Accuracy against flow steps",
            series=[_held(one, last) for one in series],
            x_label="flow steps spent on an image, at most",
            y_label="share of images that show what was asked for",
            y_range=(0, 1),
            intro="The newest picture when no more had been spent; an image that was finished "
            f"earlier keeps its picture. {_BARS}",
        )


def round_sections(runs: Sequence[Run]) -> Iterator[Curve]:
    """Show the pictures after each round; of one run, also whether they show their plans."""
    staged = [run for run in runs if any(map(_ROUND.fullmatch, run.result.also))]
    if not staged:
        return
    series = [_series(run.name, run.result.also, _ROUND) for run in staged]
    intro = "Counted over all images, each with its picture so far. "
    if len(staged) == 1:
        followed = _series("shows its plan", staged[0].result.also, _FOLLOWED)
        series = [replace(series[0], name="shows the prompt"), followed]
        intro += (
            "What shows exactly its plan is counted over the images that had such a round; until "
            "the last one a plan is only a part of the prompt. "
        )
    yield Curve(
        title="Accuracy by round",
        series=series,
        x_label="round (a plan and its sketches)",
        y_label="share of images that show what was asked for",
        y_range=(0, 1),
        intro=intro + _BARS,
    )


def followed_sections(runs: Sequence[Run]) -> Iterator[Curve]:
    """Show whether the pictures of each round show what was planned for them."""
    staged = [run for run in runs if any(map(_FOLLOWED.fullmatch, run.result.also))]
    if staged:
        yield Curve(
            title="Rounds that end in what was planned",
            series=[_series(run.name, run.result.also, _FOLLOWED) for run in staged],
            x_label="round (a plan and its sketches)",
            y_label="share of rounds whose last sketch shows exactly its plan",
            y_range=(0, 1),
            intro=f"Counted over the images that had such a round. {_BARS}",
        )


def _series(name: str, also: Also, pattern: re.Pattern[str]) -> Series:
    found = sorted(
        (int(match[1]), estimate)
        for key, estimate in also.items()
        if (match := pattern.fullmatch(key)) and estimate.value is not None
    )

    def drawn(value: float | None) -> float:
        return math.nan if value is None else value

    return Series(
        name=name,
        points=[(x, drawn(estimate.value)) for x, estimate in found],
        intervals=[(drawn(low), drawn(high)) for low, high in (ends(e) for _, e in found)],
    )


def _held(series: Series, until: float) -> Series:
    """Go on with the last value: a finished image keeps its picture."""
    if not series.points or series.points[-1][0] == until:
        return series
    return replace(
        series,
        points=[*series.points, (until, series.points[-1][1])],
        intervals=[*series.intervals, series.intervals[-1]],
    )


def inspection_sections(run: Run) -> Iterator[Dots]:
    """Show how often inspections were right, by kind of fault."""
    also = run.result.also
    rows = []
    for target, plural in _TARGETS.items():
        for kind in ("", *KINDS):
            names = [
                f"inspect {target}/{m}{'/' * bool(kind)}{kind}" for m in ("precision", "recall")
            ]
            if any(name in also for name in names):
                label = f"{plural}: {kind or 'anything wrong'}"
                rows.append(Row(label=label, cells=[cell(also.get(name)) for name in names]))
    if rows:
        yield Dots(
            title=f"Inspection: {run.name}",
            columns=["precision", "recall"],
            rows=rows,
            x_label="share",
            corner="fault",
            intro="Precision: of what was refused (with a fault of this kind named), how much had "
            "one. Recall: of what had one and was inspected, how much was refused (with the kind "
            "named). Sketches are held against what they were drawn for, by the detector.",
        )


def refinement_sections(runs: Sequence[Run]) -> Iterator[Stacks]:
    """Show what became of what was refined."""
    rows = []
    for run in runs:
        for target, plural in _TARGETS.items():
            counts = _flow(run.result.also, target)
            if sum(counts):
                label = f"{run.name}: {plural}" if len(runs) > 1 else plural
                rows.append(Row(label=label, cells=[Cell(value=count) for count in counts]))
    if rows:
        yield Stacks(
            title="What refinement did",
            columns=["wrong to right", "right to right", "wrong to wrong", "right to wrong"],
            rows=rows,
            corner="refined",
            tones=("good", "accent", "quiet", "bad"),
            intro="Before and after each refinement, held against what was to be shown. What could "
            "not be judged on both sides is left out.",
        )


def _flow(also: Also, target: str) -> tuple[int, int, int, int]:
    """Counts of refinements by what was there before and after."""
    helped = _count(also.get(f"refine {target}/helped"))
    harmed = _count(also.get(f"refine {target}/harmed"))
    return helped[0], harmed[1], helped[1], harmed[0]


def _count(estimate: Estimate | None) -> tuple[int, int]:
    """How many did, and how many did not."""
    if estimate is None or estimate.value is None:
        return 0, 0
    did = round(estimate.value * estimate.n)
    return did, estimate.n - did


def _steps(runs: Sequence[Run]) -> Iterator[Table]:
    shown = [run for run in runs if any(name in run.result.also for name in _STEPS)]
    rows = named_rows(shown, {**_STEPS, _SHIFT: "pixels that those moved which are still there"})
    if rows:
        yield Table(
            title="Plans, stops, and what should have stayed",
            columns=[run.name for run in shown],
            rows=rows,
            corner="share of",
            digits=3,
            intro="Means with 95% intervals, clustered by prompt. Stops that the loop's limits "
            "imposed are no decisions.",
        )
