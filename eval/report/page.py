"""The whole page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.report.answer import answer
from eval.report.galleries import (
    failure_sections,
    parting_sections,
    sample_sections,
    trajectory_sections,
)
from eval.report.process import process_sections
from eval.report.runs import Run
from eval.report.scores import difference_sections, score_sections
from eval.statistics import METHOD
from staged.report import Notes, Report

MAX_RUNS = 6
"""As many as can be told apart in a figure."""
_MAX_CHARS = 800
TITLES = {"miniature": "Miniature", "geneval": "GenEval", "geneval2": "GenEval 2", "wise": "WISE"}


def build(
    runs: Sequence[Run],
    *,
    title: str = "",
    per_kind: int = 12,
    num_trajectories: int = 6,
    across_variants: bool = False,
) -> Report:
    """Put a page together.

    Args:
        runs: Of one benchmark; the others are compared with the first.
        title: Heading; the benchmark when empty.
        per_kind: Most pictures of a gallery.
        num_trajectories: Most trajectories of a run that are shown step by step.
        across_variants: Compare although prompts, judge, weighting or the like differ.

    Raises:
        ValueError: the runs cannot be compared, or an image cannot be decoded.
        OSError: an image cannot be read.
    """
    if not 1 <= len(runs) <= MAX_RUNS:
        raise ValueError(f"{len(runs)} results; a page shows 1 to {MAX_RUNS}")
    first = runs[0].result
    others = [run.result.benchmark for run in runs if run.result.benchmark != first.benchmark]
    if others:
        raise ValueError(
            f"results of {first.benchmark} and of {others[0]}; a page shows one benchmark"
        )
    name = TITLES.get(first.benchmark, first.benchmark)
    variant = ", ".join(f"{key} {value}" for key, value in first.variant.items())
    unscored = sum(run.result.overall.unscored for run in runs)
    total = unscored + sum(run.result.overall.n for run in runs)
    facts = [f"{variant[:1].upper()}{variant[1:]}."] if variant else []
    if unscored:
        facts.append(f"Unscored: {unscored} of {total}; the scores are of the others.")
    return Report(
        title=title or name,
        lead=" ".join(facts),
        kind="evaluation",
        opening=answer(runs, across_variants=across_variants),
        sections=[
            *parting_sections(runs, per_kind=per_kind),
            *(sample_sections(runs) if len(runs) == 1 else ()),
            *score_sections(runs),
            *difference_sections(runs, across_variants=across_variants),
            *process_sections(runs),
            *failure_sections(runs, per_kind=per_kind),
            *trajectory_sections(runs, most=num_trajectories),
            _notes(runs),
        ],
    )


def _notes(runs: Sequence[Run]) -> Notes:
    return Notes(
        title="What this rests on",
        paragraphs=[
            f"Intervals: {METHOD}. Images of one prompt are one cluster, never independent.",
            *(f"{run.name}. {_provenance(run.result.provenance)}." for run in runs),
        ],
    )


def _provenance(provenance: Mapping[str, Any]) -> str:
    plain = {key.replace("_", " "): _plain(value) for key, value in provenance.items()}
    said = [f"{key}: {text}" for key, text in plain.items() if text]
    return "; ".join(text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}…" for text in said)


def _plain(value: Any) -> str:
    """Write JSON without its marks; what is empty or not set is left out."""
    if isinstance(value, dict):
        there = {key: item for key, item in value.items() if item not in (None, {}, [], "")}
        return ", ".join(f"{key.replace('_', ' ')} {_plain(item)}" for key, item in there.items())
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    return str(value)
