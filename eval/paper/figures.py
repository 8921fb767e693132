"""Figures of a study, as data."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from eval.miniature.line import SampleScore
from eval.paper.cell import DrawnCell
from eval.paper.settings import PaperSection
from eval.report.process import (
    flow_step_sections,
    followed_sections,
    inspection_sections,
    refinement_sections,
    round_sections,
)
from eval.report.scores import ends
from eval.statistics import Estimate, Observation, mean
from staged.report import Curve, Dots, Series, Stacks
from staged.shapes.language.prompts import read_prompt

PaperFigure = Curve | Dots | Stacks


def figures(section: PaperSection, drawn: Sequence[DrawnCell]) -> list[PaperFigure]:
    """Make the figures of a section of the cells that were drawn; none where they show nothing."""
    return FIGURES[section.kind](section, drawn) if drawn else []


def _by_flow_steps(section: PaperSection, drawn: Sequence[DrawnCell]) -> list[PaperFigure]:
    return _titled(section, flow_step_sections([one.run for one in drawn]))


def _by_round(section: PaperSection, drawn: Sequence[DrawnCell]) -> list[PaperFigure]:
    return _titled(section, round_sections([one.run for one in drawn]))


def _followed(section: PaperSection, drawn: Sequence[DrawnCell]) -> list[PaperFigure]:
    return _titled(section, followed_sections([one.run for one in drawn]))


def _inspections(section: PaperSection, drawn: Sequence[DrawnCell]) -> list[PaperFigure]:
    return [dots for one in drawn for dots in inspection_sections(one.run)]


def _refinements(section: PaperSection, drawn: Sequence[DrawnCell]) -> list[PaperFigure]:
    stacks = refinement_sections([one.run for one in drawn])
    return [replace(found, title=section.title) for found in stacks]


def _by_length(section: PaperSection, drawn: Sequence[DrawnCell]) -> list[PaperFigure]:
    """Sketches an image against the things and relations of its prompt."""
    series = []
    for one in drawn:
        by_size: defaultdict[int, list[Observation]] = defaultdict(list)
        for item in one.scored:
            if item.planned is not None:
                seen = Observation(cluster=item.prompt, value=float(item.num_sketches))
                by_size[complexity(item)].append(seen)
        points = ((size, mean(found, bounds=None)) for size, found in sorted(by_size.items()))
        series.append(_series(one.label, points))
    curve = Curve(
        title=section.title,
        series=series,
        x_label="things and relations that the prompt asks for",
        y_label="sketches an image",
    )
    return [curve]


def _by_amount(section: PaperSection, drawn: Sequence[DrawnCell]) -> list[PaperFigure]:
    """The overall score against what the cells differ in."""
    there = {one.at: one.run.result.overall for one in drawn if one.at is not None}
    curve = Curve(
        title=section.title,
        series=[_series("overall", sorted(there.items(), key=lambda point: point[0]))],
        x_label=section.x_label,
        y_label="share of images that show what was asked for",
        y_range=(0, 1),
    )
    return [curve]


def complexity(item: SampleScore) -> int:
    """How many things and relations the prompt of a sample asks for."""
    return _complexity(item.prompt)


@lru_cache(maxsize=4096)
def _complexity(prompt: str) -> int:
    spec = read_prompt(prompt).spec
    return spec.num_shapes + len(spec.relations)


def _series(label: str, points: Iterable[tuple[float, Estimate]]) -> Series:
    found = [(x, estimate) for x, estimate in points if estimate.value is not None]
    nothing = math.nan
    return Series(
        name=label,
        points=[(x, nothing if e.value is None else e.value) for x, e in found],
        intervals=[
            (nothing if low is None else low, nothing if high is None else high)
            for low, high in (ends(e) for _, e in found)
        ],
    )


def _titled(section: PaperSection, curves: Iterable[Curve]) -> list[PaperFigure]:
    return [replace(curve, title=section.title) for curve in curves]


FIGURES: dict[str, Callable[[PaperSection, Sequence[DrawnCell]], list[PaperFigure]]] = {
    "flow steps": _by_flow_steps,
    "rounds": _by_round,
    "plans": _followed,
    "inspections": _inspections,
    "refinements": _refinements,
    "length": _by_length,
    "amount": _by_amount,
}
"""By kind of section."""
