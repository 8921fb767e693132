"""The page of a study as one web page that needs no network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from eval.paper.pictures import ChosenSamples
from eval.paper.study import DrawnStudy, ShownSection
from staged.report import (
    Claims,
    Gallery,
    GalleryPicture,
    Notes,
    Outcome,
    Report,
    Section,
    Trajectories,
    detector,
)


def report_of(study: DrawnStudy) -> Report:
    """Put the page together.

    Raises:
        ValueError: something cannot be shown.
        OSError: a picture cannot be read.
    """
    settings, claims = study.settings, study.claims()
    sections = [made for section in study.sections() for made in _sections(section)]
    outro = [settings.outro.strip()] if settings.outro.strip() else []
    notes = Notes(
        title="What this rests on",
        paragraphs=[study.facts(), *outro, f"Written by: {study.command}", *study.origins()],
    )
    return Report(
        title=settings.title,
        lead=_plain(settings.intro),
        kind="study",
        opening=Claims(claims=claims) if claims else None,
        sections=[*sections, notes],
    )


def _sections(section: ShownSection) -> Iterator[Section]:
    """What a section shows, its words above the first of it."""
    missing = f"Not drawn yet: {'; '.join(section.missing)}." if section.missing else ""
    words = " ".join(filter(None, (_plain(section.asked.words), missing)))
    if not section.shown:
        yield Notes(title=section.asked.title, paragraphs=[words or "Nothing to show."])
    for count, shown in enumerate(section.shown):
        made = _pictures(shown) if isinstance(shown, ChosenSamples) else shown
        yield replace(made, intro=" ".join(filter(None, (words if count == 0 else "", made.intro))))


def _pictures(shown: ChosenSamples) -> Gallery | Trajectories:
    each = list(zip(shown.scored, shown.trajectories, strict=True))
    if shown.in_steps:
        outcomes = [Outcome.of(t, opinions=[detector(s.correct, s.reasons)]) for s, t in each]
        return Trajectories(
            title=shown.words, trajectories=shown.trajectories, outcomes=outcomes, folded=True
        )
    pictures = [
        GalleryPicture(
            png=t.last_sketch.image.png,
            caption=s.prompt,
            note="" if s.correct else "; ".join(s.reasons),
            good=s.correct,
        )
        for s, t in each
        if t.last_sketch is not None and t.last_sketch.image.png is not None
    ]
    return Gallery(title=shown.words, pictures=pictures)


def _plain(text: str) -> str:
    """A paragraph as it stands in settings, on one line and without Markdown's code marks."""
    return " ".join(text.replace("`", "").split())
