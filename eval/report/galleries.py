"""Pictures: failures by reason, what is right, where two runs part, and some step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

from eval.report.runs import Run
from eval.report.samples import ReportSample
from staged.report import (
    Galleries,
    Gallery,
    GalleryPicture,
    Outcome,
    Section,
    Trajectories,
    detector,
)
from staged.trajectory import Trajectory

MAX_KINDS = 12
_MAX_REASONS = 3
_MAX_CHARS = 240

T = TypeVar("T")


def failure_sections(runs: Sequence[Run], *, per_kind: int) -> list[Section]:
    """Show what went wrong in each run, by kind of reason, and some of what went right.

    Args:
        runs: Those without lines of samples are passed over.
        per_kind: Most pictures of a kind.

    Raises:
        ValueError: an image cannot be decoded.
        OSError: an image cannot be read.
    """
    return [_failures(run, per_kind) for run in runs if run.samples]


def _failures(run: Run, per_kind: int) -> Galleries:
    wrong = [sample for sample in run.samples if not sample.right]
    counts = Counter(kind for sample in wrong for kind in sample.kinds)
    kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))
    galleries = [
        _gallery(run, kind, [s for s in wrong if kind in s.kinds], per_kind)
        for kind in kinds[:MAX_KINDS]
    ]
    right = [sample for sample in run.samples if sample.right]
    if right:
        galleries.append(_gallery(run, "right", right, per_kind))
    intro = f"{len(wrong)} of {len(run.samples)} images are wrong or unscored. "
    if any(len(sample.kinds) > 1 for sample in wrong):
        intro += "One with faults of several kinds counts under each. "
    if len(kinds) > MAX_KINDS:
        rest = sum(counts[kind] for kind in kinds[MAX_KINDS:])
        intro += f"{len(kinds) - MAX_KINDS} rarer kinds, {rest} images, are not shown. "
    intro += "What is shown is spread evenly over the run, not picked."
    return Galleries(title=f"Failures: {run.name}", galleries=galleries, intro=intro)


def _gallery(run: Run, kind: str, samples: Sequence[ReportSample], most: int) -> Gallery:
    pictures = _pictures(run, samples, most)
    intro = f"{len(pictures)} of {len(samples)} shown."
    if not pictures:
        reasons = Counter("; ".join(sample.reasons) for sample in samples).most_common(_MAX_REASONS)
        said = "; ".join(f"{cut(reason)} ({number})" for reason, number in reasons)
        intro = f"{len(samples)} without a picture to show: {said}."
    return Gallery(title=kind[:1].upper() + kind[1:], pictures=pictures, intro=intro)


def _pictures(run: Run, samples: Sequence[ReportSample], most: int) -> list[GalleryPicture]:
    """Show some, spread evenly; where one has no picture, its neighbours have a chance."""
    chosen = []
    for stretch in stretches(samples, most):
        for sample in stretch:
            png = run.picture(sample)
            if png is not None:
                chosen.append(_picture(sample, png))
                break
    return chosen


def sample_sections(runs: Sequence[Run]) -> Iterator[Gallery]:
    """Show one picture of each part of each run, right or wrong: the first."""
    for run in runs:
        firsts = {sample.part: sample for sample in reversed(run.samples)}
        pictures = _pictures(run, [*reversed(firsts.values())], len(firsts))
        if pictures:
            intro = "The first image of each part, whatever came of it."
            yield Gallery(title=f"Pictures: {run.name}", pictures=pictures, intro=intro)


def parting_sections(runs: Sequence[Run], *, per_kind: int) -> Iterator[Galleries]:
    """Show where the first run and another disagree, side by side.

    Only samples that both have: same name, same prompt, same seed.
    """
    first, *others = runs
    for run in others:
        theirs = {(s.name, s.prompt, s.seed): s for s in first.samples}
        pairs = [
            (theirs[key], sample)
            for sample in run.samples
            if (key := (sample.name, sample.prompt, sample.seed)) in theirs
        ]
        galleries = [
            _parting(first, run, _only(pairs, right), f"Only {name} is right", per_kind)
            for right, name in enumerate((first.name, run.name))
        ]
        if any(gallery.pictures for gallery in galleries):
            yield Galleries(
                title=f"Where they part: {first.name} and {run.name}",
                galleries=galleries,
                intro="The same prompt and seed in both, in this order.",
            )


def _only(
    pairs: Sequence[tuple[ReportSample, ReportSample]], right: int
) -> list[tuple[ReportSample, ReportSample]]:
    """Pairs of which one is right and the other wrong."""
    return [pair for pair in pairs if pair[right].right and pair[1 - right].right is False]


def _parting(
    first: Run,
    second: Run,
    pairs: Sequence[tuple[ReportSample, ReportSample]],
    title: str,
    most: int,
) -> Gallery:
    pictures: list[GalleryPicture] = []
    shown = 0
    for stretch in stretches(pairs, max(most // 2, 1)):
        a, b = stretch[0]
        pngs = first.picture(a), second.picture(b)
        if pngs[0] is not None and pngs[1] is not None:
            pictures += [_picture(a, pngs[0], first.name), _picture(b, pngs[1], second.name)]
            shown += 1
    intro = f"{shown} of {len(pairs)} pairs shown."
    return Gallery(title=title, pictures=pictures, intro=intro, together=2)


def trajectory_sections(runs: Sequence[Run], *, most: int) -> Iterator[Trajectories]:
    """Show some samples of each run that draws in stages, step by step.

    Raises:
        ValueError: the steps of one are damaged.
    """
    for run in runs:
        staged = [sample for sample in run.samples if run.is_staged(sample)]
        shown = [stretch[0] for stretch in stretches(staged, most)]
        if shown:
            trajectories = [run.trajectory(sample) for sample in shown]
            yield Trajectories(
                title=f"Step by step: {run.name}",
                trajectories=trajectories,
                outcomes=list(map(_outcome, trajectories, shown)),
                intro=f"{len(shown)} of {len(staged)}, spread evenly over the run. Open one to "
                "see its steps.",
                folded=True,
            )


def stretches(items: Sequence[T], number: int) -> list[Sequence[T]]:
    """Cut a sequence into at most so many stretches of about the same length, none empty."""
    count = min(number, len(items))
    cuts = [round(i * len(items) / count) for i in range(count + 1)] if count else []
    return [items[a:b] for a, b in pairwise(cuts)]


def cut(text: str) -> str:
    """Shorten what is too long for a caption."""
    return text if len(text) <= _MAX_CHARS else text[: _MAX_CHARS - 1] + "…"


def _picture(sample: ReportSample, png: bytes, run: str = "") -> GalleryPicture:
    notes = ["; ".join(_some(sample.reasons)), _seed(sample)]
    return GalleryPicture(
        png=png,
        caption=cut(sample.prompt) or f"{sample.part} {sample.name}",
        note="\n".join(filter(None, notes)),
        good=sample.right,
        label=run,
    )


def _outcome(trajectory: Trajectory, sample: ReportSample) -> Outcome:
    facts = [] if sample.seed is None else [("seed", str(sample.seed))]
    return Outcome.of(
        trajectory, facts=facts, opinions=[detector(sample.right, [*_some(sample.reasons)])]
    )


def _seed(sample: ReportSample) -> str:
    return "" if sample.seed is None else f"seed {sample.seed}"


def _some(reasons: Sequence[str]) -> Iterable[str]:
    yield from map(cut, reasons[:_MAX_REASONS])
    if len(reasons) > _MAX_REASONS:
        yield f"and {len(reasons) - _MAX_REASONS} more"
