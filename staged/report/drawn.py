"""The page of trajectories: one opens with its picture, several with a sheet of theirs."""

from __future__ import annotations

from collections.abc import Sequence

from staged.report.outcome import Outcome
from staged.report.page import Report
from staged.report.sections import Notes, Section, Trajectories
from staged.trajectory import Trajectory

KIND = "drawn in stages"


def drawn_report(
    trajectories: Sequence[Trajectory],
    *,
    title: str = "",
    intro: str = "",
    expect: str = "",
    notes: Sequence[str] = (),
) -> Report:
    """Put the page together.

    Args:
        trajectories: Their images must be loaded.
        title: Heading, where there are several.
        intro: Plain text above them.
        expect: What a reader must know of the model that drew them.
        notes: How they were made.
    """
    first = [Notes(title="What to expect", paragraphs=[expect])] if expect else []
    about = [Notes(title="How it was made", paragraphs=notes)] if notes else []
    if len(trajectories) == 1:
        [trajectory] = trajectories
        steps = Trajectories(
            title="How it came about", trajectories=trajectories, bare=True, intro=intro
        )
        return Report(
            title=trajectory.prompt,
            kind=KIND,
            opening=Outcome.of(trajectory),
            sections=[*first, steps, *about],
        )
    sections: list[Section] = [
        Trajectories(title="Pictures", trajectories=trajectories, intro=intro),
        *first,
        *about,
    ]
    return Report(title=title or f"{len(trajectories)} pictures", kind=KIND, sections=sections)
