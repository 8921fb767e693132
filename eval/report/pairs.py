"""Lines of one study against one another: how much better the first of each pair is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eval.compare import compare
from eval.report.scores import sure_cell
from eval.results import BenchmarkResult
from eval.statistics import Estimate
from staged.report import Dots, Row

Pairs = Mapping[tuple[str, str], Estimate]
"""Two lines -> how much higher the first one's share is, with its interval."""


def differences(
    results: Mapping[str, BenchmarkResult], pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Estimate]:
    """Compare lines cluster by cluster; pairs of which one is not there are left out."""
    return {
        (one, other): compare(results[one], results[other]).estimates["overall"]
        for one, other in pairs
        if one in results and other in results
    }


def differences_figure(
    found: Pairs, labels: Mapping[str, str], *, title: str, intro: str = ""
) -> Dots:
    """Show differences of shares, each with its interval, around none."""
    return Dots(
        title=title,
        columns=["difference"],
        rows=[
            Row(label=f"{labels[one]} over {labels[other]}", cells=[sure_cell(gain)])
            for (one, other), gain in found.items()
        ],
        x_label="difference of shares",
        corner="pair",
        signed=True,
        span=(-1, 1),
        intro=intro,
    )
