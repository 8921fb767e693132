"""Tables: the scores of each run, how sure their differences are, and what a picture cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from eval.compare import Difference, compare
from eval.miniature.course import budgets
from eval.report.runs import Run
from eval.report.samples import ReportSample
from eval.results import OVERALL, BenchmarkResult
from eval.statistics import Estimate
from staged.report import Cell, Dots, Row, Section, Table

MIN_CLUSTERS = 5
"""Fewer prompts give an interval so wide that to draw it says nothing: of two, [0, 1]."""
_COSTS = {
    "num_flow_steps": "flow steps",
    "num_sketches": "sketches",
    "text_tokens": "tokens of text",
}


def score_sections(runs: Sequence[Run]) -> list[Section]:
    """Show the scores of each run, and what its images took."""
    rows = [
        Row(label=words(part), cells=[cell(run.result.estimates.get(part)) for run in runs])
        for part in runs[0].result.estimates
    ]
    exact = [run.result.also.get("exact") for run in runs]
    if any(exact):
        rows.append(Row(label="overall, nothing beside it", cells=[cell(e) for e in exact]))
    figure = Dots(
        title="Scores",
        columns=[run.name for run in runs],
        rows=rows,
        x_label="score",
        corner="part",
        digits=3,
        intro="Means with 95% intervals; n counts scored images. An image without a score counts "
        "as unscored, never as wrong.",
    )
    return [figure, *_costs(runs)]


def difference_sections(runs: Sequence[Run], *, across_variants: bool) -> list[Section]:
    """Pair each run with the first.

    Raises:
        ValueError: the runs cannot be compared.
    """
    if len(runs) < 2:
        return []
    first = runs[0].result
    found = [compare(run.result, first, across_variants=across_variants) for run in runs[1:]]
    figure = Dots(
        title="Differences",
        columns=_columns(found),
        rows=[
            Row(label=words(part), cells=[sure_cell(d.estimates.get(part)) for d in found])
            for part in first.estimates
        ],
        x_label="difference of scores",
        corner="part",
        digits=3,
        signed=True,
        span=(-1, 1),
        intro=f"How much higher each run scores than {first.run}, prompt by prompt: what makes a "
        "prompt hard for both does not blur it. Where the 95% interval leaves out zero, the "
        "difference is named. " + _noted(found),
    )
    return [figure, *equal_cost_sections(runs, across_variants=across_variants)]


def equal_cost_sections(runs: Sequence[Run], *, across_variants: bool) -> list[Table]:
    """Compare what each run had drawn when it had spent as many flow steps.

    Raises:
        ValueError: the runs cannot be compared.
    """
    if not all(any(sample.course for sample in run.samples) for run in runs):
        return []
    spent = [[steps for steps, _ in sample.course] for run in runs for sample in run.samples]
    rows = []
    for budget in budgets(spent):
        results = [_within(run, budget) for run in runs]
        gains = [
            compare(result, results[0], across_variants=across_variants) for result in results[1:]
        ]
        rows.append(
            Row(
                label=str(budget),
                cells=[
                    *(cell(result.overall) for result in results),
                    *(replace(sure_cell(gain.estimates[OVERALL]), signed=True) for gain in gains),
                ],
            )
        )
    if not rows:
        return []
    pairs = [f"{run.name} minus {runs[0].name}" for run in runs[1:]]
    table = Table(
        title="At equal flow steps",
        columns=[*(run.name for run in runs), *pairs],
        rows=rows,
        corner="flow steps an image",
        digits=3,
        intro="The overall score of the newest picture when no image had taken more flow steps "
        "than that. An image that was finished earlier keeps its picture, so a run that spends "
        "less is not given more tries.",
    )
    return [table]


def _within(run: Run, budget: int) -> BenchmarkResult:
    """The result of the pictures that were there with so much spent."""
    parts: dict[str, dict[str, tuple[float | None, ...]]] = {
        part: {} for part in run.result.samples
    }
    for sample in run.samples:
        prompts = parts[sample.part]
        prompts[sample.prompt] = (*prompts.get(sample.prompt, ()), _newest(sample, budget))
    return replace(run.result, samples=parts)


def _newest(sample: ReportSample, budget: int) -> float | None:
    return next((score for steps, score in reversed(sample.course) if steps <= budget), None)


def _costs(runs: Sequence[Run]) -> Iterator[Table]:
    rows = named_rows(runs, _COSTS)
    if rows:
        yield Table(
            title="What an image took",
            columns=[run.name for run in runs],
            rows=rows,
            corner="an image",
            digits=1,
            intro="Flow steps are network evaluations. A score bought with more of them is not a "
            "better model; compare at equal flow steps.",
        )


def named_rows(runs: Sequence[Run], labels: Mapping[str, str]) -> list[Row]:
    """Rows of what the runs measured beside their scores; what none of them has is left out.

    Args:
        runs: Of the columns.
        labels: By name of what was measured.
    """
    alsos = [run.result.also for run in runs]
    return [
        Row(label=label, cells=[cell(also.get(name)) for also in alsos])
        for name, label in labels.items()
        if any(name in also for also in alsos)
    ]


def cell(estimate: Estimate | None) -> Cell:
    """Show an estimate; what was not measured stays empty, and few prompts get no interval."""
    if estimate is None:
        return Cell()
    low, high = ends(estimate)
    return Cell(
        value=estimate.value,
        low=low,
        high=high,
        count=estimate.n,
        note=f"{estimate.unscored} unscored" if estimate.unscored else "",
    )


def ends(estimate: Estimate) -> tuple[float | None, float | None]:
    """Return an interval's ends, or none where it rests on fewer prompts than `MIN_CLUSTERS`."""
    if estimate.num_clusters < MIN_CLUSTERS:
        return None, None
    return estimate.low, estimate.high


def sure_cell(estimate: Estimate | None) -> Cell:
    """Show a difference, and say so where it is one."""
    shown = cell(estimate)
    verdict = ""
    if shown.low is not None and shown.high is not None:
        verdict = "higher" if shown.low > 0 else "lower" if shown.high < 0 else ""
    return replace(shown, count=None, note=verdict, best=bool(verdict))


def words(name: str) -> str:
    """A name of a part as people write it."""
    return name.replace("_", " ")


def _columns(differences: Sequence[Difference]) -> list[str]:
    return [f"{difference.run} minus {difference.reference}" for difference in differences]


def _noted(differences: Sequence[Difference]) -> str:
    return " ".join(f"{d.run}: {note}." for d in differences for note in d.notes)
