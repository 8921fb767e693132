"""The demo's report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from data_pipelines.reasons import reason_in_words
from eval.report.answer import in_words
from eval.report.scores import cell
from eval.tables import show
from staged.cli.demo.stages import DemoScore
from staged.jobs.progress import duration
from staged.report import (
    Cell,
    Claim,
    Claims,
    Curve,
    Gallery,
    GalleryPicture,
    Notes,
    Outcome,
    Report,
    Row,
    Section,
    Table,
    Trajectories,
    detector,
)
from staged.shapes.sight.judged import DETECTOR
from staged.shards import Manifest
from staged.trajectory import Trajectory

BASE, OWN, SHIPPED = "Base, one shot", "Demo, staged", "Shipped, staged"
"""What the three ways of drawing are called."""
_share, _signed = partial(show, digits=2), partial(show, digits=2, signed=True)
_NAMED = {
    BASE: "the base in one shot",
    OWN: "The demo's own model in stages",
    SHIPPED: "The shipped model in stages",
}

_LEAD = """A model that draws step by step: it plans the next change, sketches it, inspects plan
and sketch, refines what is wrong, and stops when it is done. Everything on this page was made on
this machine, by the commands that also serve the full-size model."""

_SMALL = (
    "The world: 12 shapes in 10 colours on a canvas of 48 x 48 pixels, described in a fixed "
    "grammar. It was chosen so that every picture can be scored exactly, from its pixels alone.",
    "The model: BAGEL's code and file layout with some millions of weights where the real one "
    "has fourteen billion. What it learns here says how the method behaves, not how good "
    "full-size pictures will be.",
    "The language model and the image editor that made the data set are scripts which know the "
    "world's rules. They answer through the same interfaces as real ones, and are told to fail "
    "now and then.",
    "The fine-tune: a few hundred trajectories for a few minutes. The shipped model saw the same "
    "kinds of data for much longer; compare the two in the scores.",
    "The scores: a few dozen prompts, so the intervals are wide; differences that lie within "
    "them mean nothing. `staged eval miniature --num-per-task 100` narrows them.",
    "Flow steps: a picture drawn in stages costs several sketches. The table says how many flow "
    "steps each way took; a fair comparison also gives the one-shot model as many tries.",
)


def build(
    *,
    manifest: Manifest,
    examples: Sequence[Trajectory],
    curve: Curve,
    drawn: Sequence[Trajectory],
    scores: Sequence[DemoScore],
    seconds: Mapping[str, float],
    quick: bool,
) -> Report:
    """Put the page together."""
    lead = " ".join(_LEAD.split())
    if quick:
        lead += " This was a quick check with very little of everything: its numbers mean nothing."
    # Stable: in their own order among equals.
    drawn = sorted(drawn, key=lambda trajectory: (not _right(trajectory), not trajectory.complete))
    sections: list[Section] = [
        Trajectories(
            title="Drawn in stages",
            trajectories=drawn[:1],
            intro="By the shipped model, each with seed 0. What the detector finds right stands "
            "in front; the prompts were not chosen for how they come out.",
        ),
        *_others(drawn[1:]),
        _pictures(scores),
        _table(scores),
        Trajectories(
            title="The data set: samples",
            trajectories=examples,
            intro=_data_words(manifest),
            folded=True,
        ),
        curve,
        _own(scores),
        Notes(title="What is small about this", paragraphs=_SMALL),
        _times(seconds),
    ]
    return Report(
        title="The method in miniature",
        kind="demo",
        lead=lead,
        opening=_opening(scores),
        sections=sections,
    )


def _opening(scores: Sequence[DemoScore]) -> Claims:
    """Say how each way of drawing compares with the first."""
    first, *others = scores
    claims = []
    for score in others:
        if score.difference is not None:
            text, tone = in_words(_NAMED[score.label], _NAMED[first.label], score.difference)
            shares = [
                f"{one.label.lower()} {_share(one.result.overall.value)} right, "
                f"{_cost(one):.0f} flow steps a picture"
                for one in (first, score)
            ]
            count = f"{score.result.overall.n} scored pictures"
            claims.append(Claim(text=text, tone=tone, detail=f"{'; '.join(shares)}; {count}."))
    return Claims(claims=[*reversed(claims)])


def _right(trajectory: Trajectory) -> bool:
    return bool(trajectory.provenance.get(DETECTOR, {}).get("correct"))


def _others(drawn: Sequence[Trajectory]) -> list[Section]:
    if not drawn:
        return []
    section = Trajectories(
        title="Drawn in stages: the other prompts",
        trajectories=drawn,
        folded=True,
        intro="Open one to see its steps.",
    )
    return [section]


def training_curve(log: Path, length: str = "") -> Curve:
    """The fine-tune's losses.

    Args:
        log: Of the run.
        length: How long it was, and why, in a sentence.
    """
    return Curve.from_log(
        log,
        {"mse": "pictures (squared error)", "ce": "text (nats a token)"},
        title="The fine-tune: loss",
        intro="The base model has drawn pictures before but never planned or inspected, so the "
        "text loss falls far and fast. Each point is one packed batch; the scale is logarithmic. "
        + length,
        log_y=True,
    )


def falling(curve: Curve) -> str:
    """Say where each line begins and ends, each as the mean of a few points."""
    said = []
    for series in curve.series:
        values = [y for _, y in series.points]
        few = max(len(values) // 8, 1)
        first, last = sum(values[:few]) / few, sum(values[-few:]) / few
        said.append(f"{series.name}: {first:.3f} -> {last:.3f}")
    return "loss of " + "; of ".join(said)


def scores_in_words(scores: Sequence[DemoScore]) -> str:
    """Say the overall scores in some lines for the terminal."""
    lines = []
    for score in scores:
        overall = score.result.overall
        lines.append(
            f"  {score.label:18}{_share(overall.value)} right  "
            f"({_share(overall.low)} to {_share(overall.high)}; {overall.n} pictures, "
            f"{_cost(score):.0f} flow steps each)"
        )
    last = scores[-1].difference
    if last is not None:
        lines.append(
            f"  {scores[-1].label} minus {scores[0].label.lower()}, on the same prompts: "
            f"{_signed(last.value)} ({_signed(last.low)} to {_signed(last.high)})"
        )
    return "\n".join(lines)


def _data_words(manifest: Manifest) -> str:
    samples = manifest.acceptance["samples"]
    counts = manifest.stats["steps"]
    reasons: Counter[str] = Counter()
    for stage, rows in manifest.acceptance.items():
        if stage != "samples":
            reasons.update(
                {reason_in_words(stage, reason): count for reason, count in rows.items()}
            )
    said = (
        f"{samples.get('accepted', 0)} trajectories were kept, with {counts.get('plan', 0)} plans, "
        f"{counts.get('sketch', 0)} sketches, {counts.get('inspection', 0)} inspections and "
        f"{counts.get('refinement', 0)} refinements."
    )
    if reasons:
        said += (
            " Left out: "
            + ", ".join(f"{n} ({reason})" for reason, n in reasons.most_common())
            + "."
        )
    return said + " Open one to see its steps."


def _table(scores: Sequence[DemoScore]) -> Table:
    """A row a task, a column a way of drawing: narrow enough for a phone."""
    rows = []
    for name in scores[0].result.estimates:
        estimates = [score.result.estimates[name] for score in scores]
        best = max(estimate.value or 0 for estimate in estimates)
        cells = [
            replace(cell(estimate), best=best > 0 and estimate.value == best)
            for estimate in estimates
        ]
        rows.append(Row(label=name.replace("_", " "), cells=cells))
    facts = {
        "flow steps a picture": [f"{_cost(score):.0f}" for score in scores],
        "unfinished": [f"{sum(bool(i.failure) for i in score.scored)}" for score in scores],
        "without a picture": [f"{score.result.overall.unscored}" for score in scores],
    }
    for label, texts in facts.items():
        rows.append(Row(label=label, cells=[Cell(text=text) for text in texts]))
    return Table(
        title="Scores",
        columns=[score.label for score in scores],
        rows=rows,
        corner="task",
        intro="Share of pictures that show what was asked for, with 95% intervals, on prompts "
        "with combinations that training never showed. Unfinished: the model broke the protocol "
        "before it stopped; its last picture is scored all the same, and without one it is "
        "unscored.",
    )


def _own(scores: Sequence[DemoScore]) -> Trajectories:
    """What the demo's own fine-tune has learned so far."""
    [own] = [score for score in scores if score.label == OWN]
    drawn = [own.trajectories[item.key] for item in own.scored[:4]]
    return Trajectories(
        title="After the demo's fine-tune",
        trajectories=drawn,
        outcomes=[
            Outcome.of(trajectory, opinions=[detector(item.correct, item.reasons)])
            for trajectory, item in zip(drawn, own.scored, strict=False)
        ],
        intro="Some of the prompts that are scored above, by the model that was just trained. So "
        "short a fine-tune teaches the form: which step follows which, and how each is written. "
        "What to say in it, and to draw what was said, takes longer.",
    )


def _pictures(scores: Sequence[DemoScore]) -> Gallery:
    """The first prompt of each task, drawn in every way, with the same noise."""
    firsts = {item.task: item.key for item in reversed(scores[0].scored)}
    pictures: list[GalleryPicture] = []
    for key in reversed(firsts.values()):
        drawn = [_picture(score, key) for score in scores]
        if all(drawn):
            pictures += filter(None, drawn)
    return Gallery(
        title="The same prompts, drawn in each way",
        pictures=pictures,
        together=len(scores),
        intro="The first of each task, with what the detector says.",
    )


def _picture(score: DemoScore, key: str) -> GalleryPicture | None:
    [item] = (item for item in score.scored if item.key == key)
    trajectory = score.trajectories.get(key)
    if trajectory is None or trajectory.last_sketch is None:
        return None
    return GalleryPicture(
        png=trajectory.last_sketch.image.loaded,
        caption=item.prompt,
        note=_some(item.reasons),
        good=item.correct,
        label=score.label,
    )


def _times(seconds: Mapping[str, float]) -> Table:
    rows = [Row(label=part, cells=[Cell(text=duration(time))]) for part, time in seconds.items()]
    total = Row(label="All", cells=[Cell(text=duration(sum(seconds.values())))])
    return Table(
        title="Time",
        columns=["minutes"],
        rows=[*rows, total],
        corner="part",
        intro="Of this run; parts that an earlier run had finished take no time.",
    )


def _some(reasons: Sequence[str]) -> str:
    """The first few reasons; a picture that is all wrong has many."""
    more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return "; ".join(reasons[:3]) + more


def _cost(score: DemoScore) -> float:
    return score.result.also["num_flow_steps"].value or 0.0
