"""Tables of a study, as data; what was not drawn stays empty and is said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from eval.compare import compare
from eval.paper.cell import DrawnCell
from eval.paper.settings import PaperSection
from eval.published import named
from eval.report.scores import cell, equal_cost_sections, sure_cell, words
from eval.results import OVERALL
from eval.statistics import Estimate
from staged.report import Cell, Row, Table

Cells = Mapping[str, DrawnCell | None]
_NOT_DRAWN = "not drawn"
_COSTS = {
    "num_flow_steps": "flow steps",
    "num_sketches": "pictures",
    "text_tokens": "tokens of text",
}
_PROCESS = {
    "planned": "images with a plan",
    "plan/consistent": "plans that contradict nothing",
    "plan/instruction fits": "instructions that fit their plan",
    "plan/right": "last plans that ask for exactly the prompt",
    "sketch/follows plan": "pictures that show exactly their plan",
    "inspect plan/precision": "refused plans that were wrong",
    "inspect plan/recall": "wrong plans that were refused",
    "inspect sketch/precision": "refused pictures that were wrong",
    "inspect sketch/recall": "wrong pictures that were refused",
    "refine plan/helped": "wrong plans that refinement mended",
    "refine plan/harmed": "right plans that refinement broke",
    "refine sketch/helped": "wrong pictures that refinement mended",
    "refine sketch/harmed": "right pictures that refinement broke",
    "stop/stopped when right": "right pictures at which it stopped",
    "stop/went on when wrong": "wrong pictures at which it went on",
    "untouched/kept": "untouched objects that stayed",
}
_SEARCH = {
    "num_candidates": "candidates an image",
    OVERALL: "chosen picture correct",
    "search/any correct": "some candidate correct",
    "search/chosen when any is correct": "chosen correct where some candidate is",
}


def table(section: PaperSection, cells: Cells, labels: Mapping[str, str]) -> Table | None:
    """Make the table of a section; None where nothing of it was drawn.

    Args:
        section: Of one of the kinds of tables.
        cells: By name; None for what was not drawn.
        labels: Of all cells.
    """
    if not any(cells[name] for name in section.cells):
        return None
    return TABLES[section.kind](section, cells, labels)


def _tasks(section: PaperSection, cells: Cells, labels: Mapping[str, str]) -> Table:
    drawn = [c for name in section.cells if (c := cells[name]) is not None]
    parts = list(dict.fromkeys(part for one in drawn for part in one.run.result.samples))
    against = None if section.minus is None else cells[section.minus]
    # Who skips the stages may score well for a reason of its own: that is seen beside the score.
    staged = any(
        record.settings.mode == "staged" for one in drawn for record in one.records.values()
    )
    columns = [*map(words, parts), "overall", *["with a plan"] * staged, "images"]
    if section.minus is not None:
        columns.append(f"minus {labels[section.minus]}")

    def of(one: DrawnCell) -> list[Cell]:
        estimates = one.run.result.estimates
        row = [Cell(value=e.value) if (e := estimates.get(part)) else Cell() for part in parts]
        row.append(_score(estimates[OVERALL]))
        row += [Cell(value=one.run.result.also["planned"].value)] * staged
        row.append(Cell(text=str(estimates[OVERALL].n)))
        if section.minus is not None:
            row.append(_difference(one, against))
        return row

    rows = _rows(section, cells, labels, columns, of)
    rows += [_published(name, parts, columns) for name in section.published]
    return Table(title=section.title, columns=columns, rows=rows)


def _published(name: str, parts: Sequence[str], columns: Sequence[str]) -> Row:
    scores = named(name, "geneval", {}).scores
    cells = [Cell(value=scores.get(part)) for part in (*parts, OVERALL)]
    rest = len(columns) - len(cells)
    return Row(label=f"{name} (published, GenEval)", cells=[*cells, *[Cell()] * rest])


def _difference(one: DrawnCell, against: DrawnCell | None) -> Cell:
    if against is None or one is against:
        return Cell(text="–")
    gain = compare(one.run.result, against.run.result, across_variants=True).estimates[OVERALL]
    shown = sure_cell(gain)
    return Cell(value=shown.value, low=shown.low, high=shown.high, signed=True, note=shown.note)


def _cost(section: PaperSection, cells: Cells, labels: Mapping[str, str]) -> Table:
    columns = [*_COSTS.values(), "correct", "and nothing beside"]

    def of(one: DrawnCell) -> list[Cell]:
        also = one.run.result.also
        costs = [Cell(text=_amount(also[cost])) for cost in _COSTS]
        return [*costs, _score(one.run.result.overall), Cell(value=also["exact"].value)]

    rows = _rows(section, cells, labels, columns, of)
    return Table(title=section.title, columns=columns, rows=rows)


def _equal_cost(section: PaperSection, cells: Cells, labels: Mapping[str, str]) -> Table | None:
    runs = [one.run for name in section.cells if (one := cells[name]) is not None]
    found = equal_cost_sections(runs, across_variants=True)
    return replace(found[0], title=section.title, intro="", digits=2) if found else None


def _process(section: PaperSection, cells: Cells, labels: Mapping[str, str]) -> Table:
    return _estimates(section, cells, labels, _PROCESS)


def _search(section: PaperSection, cells: Cells, labels: Mapping[str, str]) -> Table:
    return _estimates(section, cells, labels, _SEARCH)


def _seeds(section: PaperSection, cells: Cells, labels: Mapping[str, str]) -> Table:
    """Scores of each seed alone: other prompts where a task has enough, and other noise."""
    drawn = [one for name in section.cells if (one := cells[name]) is not None]
    seeds = sorted({seed for one in drawn for seed in one.records})
    columns = [*(f"seed {seed}" for seed in seeds), "all"]

    def of(one: DrawnCell) -> list[Cell]:
        alone = [one.of_seed(seed) for seed in seeds]
        scores = [Cell() if result is None else _score(result.overall) for result in alone]
        return [*scores, _score(one.run.result.overall)]

    rows = _rows(section, cells, labels, columns, of)
    return Table(title=section.title, columns=columns, rows=rows)


def _estimates(
    section: PaperSection, cells: Cells, labels: Mapping[str, str], names: Mapping[str, str]
) -> Table:
    """One row for each estimate that any of the cells has, and a column for each cell."""
    shown: dict[str, Mapping[str, Estimate]] = {}
    for name in section.cells:
        one = cells[name]
        shown[name] = {} if one is None else {**one.run.result.also, **one.run.result.estimates}
    rows = [
        Row(label=label, cells=[_counted(estimates.get(name)) for estimates in shown.values()])
        for name, label in names.items()
        if any(name in estimates for estimates in shown.values())
    ]
    columns = [
        labels[name] if estimates else f"{labels[name]} ({_NOT_DRAWN})"
        for name, estimates in shown.items()
    ]
    return Table(title=section.title, columns=columns, rows=rows, corner="share of")


def _score(estimate: Estimate) -> Cell:
    shown = cell(estimate)
    return Cell(value=shown.value, low=shown.low, high=shown.high, note=shown.note)


def _counted(estimate: Estimate | None) -> Cell:
    """An estimate with what it rests on: of steps there may be few."""
    if estimate is None or estimate.value is None:
        return Cell()
    shown = cell(estimate)
    return Cell(value=shown.value, low=shown.low, high=shown.high, count=estimate.n)


def _amount(estimate: Estimate) -> str:
    return "–" if estimate.value is None else f"{estimate.value:.1f}".removesuffix(".0")


def _rows(
    section: PaperSection,
    cells: Cells,
    labels: Mapping[str, str],
    columns: Sequence[str],
    of: Callable[[DrawnCell], list[Cell]],
) -> list[Row]:
    """One row for each cell of the study; of what was not drawn it is empty, and says so."""
    empty = [Cell(text=_NOT_DRAWN), *[Cell()] * (len(columns) - 1)]
    return [
        Row(label=labels[name], cells=empty if (one := cells[name]) is None else of(one))
        for name in section.cells
    ]


TABLES: dict[str, Callable[[PaperSection, Cells, Mapping[str, str]], Table | None]] = {
    "tasks": _tasks,
    "cost": _cost,
    "equal cost": _equal_cost,
    "process": _process,
    "search": _search,
    "seeds": _seeds,
}
"""By kind of section."""


def missing(section: PaperSection, cells: Cells) -> Iterable[str]:
    """Name the cells of a section that were not drawn."""
    return (name for name in section.cells if cells[name] is None)
