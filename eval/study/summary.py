"""What the votes say: shares with intervals, differences, and the paper's own beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from eval.report.pairs import differences, differences_figure
from eval.report.scores import cell
from eval.results import BenchmarkResult
from eval.statistics import METHOD, Estimate
from eval.study.items import LINES, StudyKey
from eval.study.published import PUBLISHED
from eval.study.votes import Votes
from staged.report import Cell, Claim, Claims, Dots, Notes, Report, Row, Table

PAIRS: Final = (("refined", "manual"), ("first", "manual"), ("refined", "first"))


def build(key: StudyKey, results: Mapping[str, BenchmarkResult], votes: Sequence[Votes]) -> Report:
    """Put the page of the result together."""
    shares = {line: results[line].overall for line in LINES}
    found = differences(results, PAIRS)
    gain = found["refined", "manual"]
    sure = gain.low is not None and gain.high is not None and (gain.low > 0 or gain.high < 0)
    words = ", ".join(f"{words} {_percent(shares[line])}" for line, words in LINES.items())
    figure = Dots(
        title="Preferences",
        columns=["share of votes"],
        rows=[Row(label=LINES[line], cells=[cell(one)]) for line, one in shares.items()],
        x_label="share",
        corner="line",
        intro="Of the votes that preferred a picture; 95% intervals by idea.",
    )
    pairs = differences_figure(found, LINES, title="Differences")
    beside = Table(
        title="Beside the published study",
        columns=[f"{words}, %" for words in LINES.values()],
        corner="image model",
        digits=1,
        rows=[
            Row(label="this study", cells=[_in_percent(shares[line]) for line in LINES]),
            *(
                Row(label=f"{name} (published)", cells=[Cell(value=value) for value in values])
                for name, values in PUBLISHED.items()
            ),
        ],
        intro="Of arXiv 2310.08541: 104 ideas, GPT-4V; published without intervals. Other ideas "
        "and other people, so the numbers say how such studies come out, not who is better.",
    )
    each = Table(
        title="Voters",
        columns=["preferred one", "preferred none"],
        corner="voter",
        digits=0,
        rows=[
            Row(
                label=one.voter,
                cells=[
                    Cell(value=float(sum(c is not None for c in one.choices.values()))),
                    Cell(value=float(sum(c is None for c in one.choices.values()))),
                ],
            )
            for one in votes
        ],
    )
    return Report(
        title=key.title,
        kind="study of preferences",
        opening=Claims(
            claims=[
                Claim(
                    text=f"Preferred: {words}.",
                    tone="good" if sure and (gain.value or 0) > 0 else "bad" if sure else "quiet",
                    detail=f"{len(votes)} voters, {shares['refined'].num_clusters} ideas, "
                    f"{shares['refined'].n} votes.",
                )
            ]
        ),
        sections=[figure, pairs, beside, each, Notes(title="How", paragraphs=[_HOW])],
    )


_HOW: Final = (
    "The order of ideas and pictures was drawn from a seed, and the page said nothing of where a "
    "picture came from. Lines with the same picture share its votes. A vote for none is unscored, "
    f"never zero. Intervals: {METHOD}."
)


def _percent(estimate: Estimate) -> str:
    return "–" if estimate.value is None else f"{100 * estimate.value:.1f}%"


def _in_percent(estimate: Estimate) -> Cell:
    found = cell(estimate)

    def scaled(value: float | None) -> float | None:
        return None if value is None else 100 * value

    return Cell(
        value=scaled(found.value), low=scaled(found.low), high=scaled(found.high), count=found.count
    )
