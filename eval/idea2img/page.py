"""The comparison as a page: the answer, the scores, the differences, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from eval.idea2img.lines import LINES, pictures, score
from eval.report.pairs import differences, differences_figure
from eval.report.scores import cell
from eval.results import BenchmarkResult
from eval.statistics import METHOD, Estimate
from staged.ideas.exploration import Exploration
from staged.report import Claim, Claims, Dots, Gallery, GalleryPicture, Notes, Report, Row
from staged.report.figures import Tone

PAIRS: Final = (
    ("refined", "manual"),
    ("first", "manual"),
    ("refined", "first"),
    ("refined", "at_once"),
    ("refined", "manual_best"),
)
"""Differences that are told: what exploring gains, and what of that is words, choice, feedback."""
_SHOWN: Final = ("manual", "first", "refined")
_MAX_IDEAS: Final = 24


def build(
    results: Mapping[str, BenchmarkResult],
    spent: Mapping[str, float],
    explored: Sequence[Exploration],
    at_once: Sequence[Exploration | None],
    notes: Sequence[str],
) -> Report:
    """Put the page together.

    Args:
        results: By line.
        spent: Pictures a line draws for one idea, on average.
        explored: By rounds.
        at_once: The same ideas at once.
        notes: How it was made.
    """
    parts = [part for part in results["refined"].estimates if part != "overall"]
    scores = Dots(
        title="Scores",
        columns=["pictures that show their idea"],
        rows=[
            Row(
                label=f"{LINES[line]} ({spent[line]:.3g} pictures)",
                cells=[cell(results[line].estimates["overall"])],
            )
            for line in results
        ],
        x_label="share",
        corner="line",
        intro="The detector's verdict on one picture an idea, by GenEval's rules; 95% intervals.",
    )
    by_kind = Dots(
        title="By kind of idea",
        columns=[LINES[line] for line in _SHOWN],
        rows=[
            Row(
                label=part.replace("_", " "),
                cells=[cell(results[line].estimates[part]) for line in _SHOWN],
            )
            for part in parts
        ],
        x_label="share",
        corner="kind",
    )
    gains = differences_figure(
        differences(results, PAIRS),
        LINES,
        title="What it gains, and why",
        intro="Idea by idea. Against as many pictures of a person's own words it is the words that "
        "gain; against as many prompts at once, looking and learning from round to round.",
    )
    return Report(
        title="Idea2Img in miniature",
        kind="ideas explored by prompts",
        opening=_answer(results),
        sections=[
            scores,
            gains,
            by_kind,
            _gallery(explored, at_once),
            Notes(title="How it was made", paragraphs=[*notes, f"Intervals: {METHOD}."]),
        ],
    )


def _answer(results: Mapping[str, BenchmarkResult]) -> Claims:
    gain = differences(results, PAIRS)
    refined, manual, first = (results[line].overall for line in ("refined", "manual", "first"))
    claims = [
        Claim(
            text=f"Of 100 ideas, exploring prompts shows {_hundred(refined)}, the first round "
            f"{_hundred(first)}, and a person's own words {_hundred(manual)}.",
            tone=_tone(gain["refined", "manual"]),
            detail=f"Refined over own words {_said(gain['refined', 'manual'])}.",
        ),
    ]
    for other, words, what in (
        ("at_once", "Learning from round to round", "the same number of prompts at once"),
        ("manual_best", "Exploring", "as many pictures of a person's own words"),
    ):
        found = gain.get(("refined", other))
        if found is not None:
            claims.append(
                Claim(
                    text=_verdict(found, words, what),
                    tone=_tone(found),
                    detail=f"Difference {_said(found)}, at as many pictures.",
                )
            )
    return Claims(claims=claims)


def _gallery(explored: Sequence[Exploration], at_once: Sequence[Exploration | None]) -> Gallery:
    shown: list[GalleryPicture] = []
    for one, other in list(zip(explored, at_once, strict=True))[:_MAX_IDEAS]:
        drafts = pictures(one, other)
        chosen = [drafts[line] for line in _SHOWN]
        if any(draft is None for draft in chosen):
            continue
        for line, draft in zip(_SHOWN, chosen, strict=True):
            assert draft is not None and draft.image is not None
            shown.append(
                GalleryPicture(
                    png=draft.image.loaded,
                    caption=one.idea.text,
                    label=LINES[line],
                    note=draft.prompt,
                    good=bool(score(one, draft)),
                )
            )
    return Gallery(
        title="Pictures",
        pictures=shown,
        together=len(_SHOWN),
        intro=f"The first {len(shown) // len(_SHOWN)} ideas, kind by kind.",
    )


def _hundred(estimate: Estimate) -> str:
    return "–" if estimate.value is None else f"{100 * estimate.value:.0f}"


def _said(estimate: Estimate) -> str:
    if estimate.value is None:
        return "not measured"
    ends = "" if estimate.low is None else f" [{estimate.low:+.2f}, {estimate.high:+.2f}]"
    return f"{estimate.value:+.2f}{ends}"


def _tone(estimate: Estimate) -> Tone:
    if estimate.low is not None and estimate.low > 0:
        return "good"
    return "bad" if estimate.high is not None and estimate.high < 0 else "quiet"


def _verdict(estimate: Estimate, one: str, other: str) -> str:
    words = {"good": "gains over", "bad": "loses against", "quiet": "cannot be told from"}
    return f"{one} {words[_tone(estimate)]} {other}."
