"""Tables of estimates as text for a terminal, Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence

from eval.statistics import Estimate

TextRow = Sequence[str]

COUNTED = ("interval", "n", "prompts", "unscored")
"""What follows name and score in a line of `counted_row`."""
Named = Iterable[tuple[str, Estimate]]
"""Estimates, and what each is of."""


def show(value: float | None, *, signed: bool = False, digits: int = 4) -> str:
    """Write a score; a dash where there is none."""
    return "-" if value is None else f"{value:{'+' if signed else ''}.{digits}f}"


def show_interval(estimate: Estimate, *, signed: bool = False, digits: int = 4) -> str:
    """Write an interval; empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    ends = (show(end, signed=signed, digits=digits) for end in (estimate.low, estimate.high))
    return f"[{', '.join(ends)}]"


def counted_row(name: str, estimate: Estimate) -> list[str]:
    """Write a line of a table under `COUNTED`: a score, its interval and what it rests on."""
    counts = (estimate.n, estimate.num_clusters, estimate.unscored)
    return [name, show(estimate.value), show_interval(estimate), *map(str, counts)]


def counted_table(label: str, score: str, found: Named) -> str:
    """Write scores for a terminal, each with its interval and what it rests on.

    Args:
        label: What stands above the names.
        score: What stands above the scores.
        found: Scores, in order.
    """
    return plain([label, score, *COUNTED], [counted_row(*one) for one in found])


def difference_table(found: Named, value: str = "value") -> str:
    """Write differences for a terminal, with their signs.

    Args:
        found: Differences, in order.
        value: What stands above them.
    """
    rows = [
        [name, show(gain.value, signed=True), show_interval(gain, signed=True)]
        for name, gain in found
    ]
    return plain(["difference", value, "interval"], rows)


def plain(header: TextRow, rows: Sequence[TextRow]) -> str:
    """Align columns with spaces: the first to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(header: TextRow, rows: Sequence[TextRow]) -> str:
    """Write a Markdown table."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, rule, *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", r"\|") for c in line) + " |" for line in lines
    )


def comma_separated(header: TextRow, rows: Sequence[TextRow]) -> str:
    """Write CSV, quoted where it must be."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue().rstrip("\n")


def latex(header: TextRow, rows: Sequence[TextRow]) -> str:
    """Write a LaTeX tabular with booktabs' rules."""

    def line(cells: TextRow) -> str:
        return " & ".join(map(_escaped, cells)) + r" \\"

    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            line(header),
            r"\midrule",
            *map(line, rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


FORMATS: dict[str, Callable[[TextRow, Sequence[TextRow]], str]] = {
    "text": plain,
    "markdown": markdown,
    "latex": latex,
    "csv": comma_separated,
}


def _escaped(cell: str) -> str:
    # The backslash first would be escaped again by what replaces the others.
    table = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(table.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in cell)
