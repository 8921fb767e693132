"""The page of explorations: an idea, three pictures, and how the last of them came about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from staged.ideas.exploration import Draft, Exploration
from staged.report.outcome import EARLY, Opinion, Outcome, detector, noted_verdict
from staged.report.page import Report
from staged.report.sections import Explorations, Gallery, GalleryPicture, Notes, Section

KIND: Final = "explored by prompts"
LINES: Final = {"manual": "own prompt", "first": "first round", "refined": "refined"}
"""The three pictures that are compared, by their names in `Exploration`, and in words."""


def explored_report(
    explorations: Sequence[Exploration],
    *,
    title: str = "",
    intro: str = "",
    expect: str = "",
    notes: Sequence[str] = (),
) -> Report:
    """Put the page together.

    Args:
        explorations: Their images must be loaded.
        title: Heading, where there are several.
        intro: Plain text above them.
        expect: What a reader must know of the image model.
        notes: How they were made.
    """
    about = [Notes(title="How it was made", paragraphs=notes)] if notes else []
    first = [Notes(title="What to expect", paragraphs=[expect])] if expect else []
    three = [section for section in [_three(explorations)] if section.pictures]
    if len(explorations) == 1:
        [one] = explorations
        steps = Explorations(
            title="How it came about",
            explorations=explorations,
            outcomes=[outcome(one)],
            bare=True,
            intro=intro,
        )
        return Report(
            title=one.idea.text,
            kind=KIND,
            opening=outcome(one),
            sections=[*three, *first, steps, *about],
        )
    sections: list[Section] = [
        Explorations(
            title="Ideas",
            explorations=explorations,
            outcomes=[outcome(one) for one in explorations],
            intro=intro,
            folded=True,
        ),
        *three,
        *first,
        *about,
    ]
    return Report(title=title or f"{len(explorations)} ideas", kind=KIND, sections=sections)


def outcome(exploration: Exploration) -> Outcome:
    """Say what came of an exploration: the chosen picture, and who says what about it."""
    refined = exploration.refined
    cost = exploration.provenance.get("cost")
    facts = [("seed", str(exploration.seed)), ("rounds", str(len(exploration.rounds)))]
    if exploration.num_drafts:
        facts.append(("pictures", str(exploration.num_drafts)))
    if isinstance(cost, dict) and isinstance(cost.get("flow_steps"), int | float):
        facts.append(("flow steps", f"{cost['flow_steps']:g}"))
    if exploration.best is not None:
        facts.append(("chosen", f"draft {exploration.best}"))
    return Outcome(
        prompt=exploration.idea.text,
        image=None if refined is None else refined.image,
        facts=facts,
        opinions=[*_own(exploration), *_detected(exploration), *_early(exploration)],
    )


def _own(exploration: Exploration) -> list[Opinion]:
    """What the language model says of the chosen picture."""
    if (holding := exploration.holding) is not None:
        held, asked = holding
        answers = next(r.answers for r in reversed(exploration.rounds) if r.answers is not None)
        unmet = [q.text for q in exploration.questions if not answers.get(q.id, True)]
        words = f"No to: {' '.join(unmet)}" if unmet else "Each of its questions is answered yes"
        return [
            Opinion(who="The inspector", mark=f"{held} of {asked} hold", good=held == asked,
                    words=words)
        ]  # fmt: skip
    said = next((s for s in exploration.final if s.place == exploration.best), None)
    refined = exploration.refined
    score = said.score if said else refined.score if refined else None
    if score is None:
        return []
    words = said.justification if said else refined.justification if refined else ""
    return [Opinion(who="The selector", mark=f"{score} of 10", words=words)]


def _detected(exploration: Exploration) -> list[Opinion]:
    found = verdict(exploration, "refined")
    return [] if found is None else [detector(*found)]


def verdict(exploration: Exploration, line: str) -> tuple[bool, list[str]] | None:
    """Read what a detector said of one of the three pictures; None where none has looked.

    Args:
        exploration: Its provenance may be anything.
        line: One of `LINES`.
    """
    said = exploration.provenance.get("detector")
    return noted_verdict(said.get(line)) if isinstance(said, dict) else None


def _early(exploration: Exploration) -> list[Opinion]:
    provenance = exploration.provenance
    failure, detail = provenance.get("failure"), provenance.get("failure_detail")
    if not isinstance(failure, str) or not failure:
        return []
    words = detail if isinstance(detail, str) and detail else failure
    kept = "The picture is the best before that" if exploration.best else "Nothing was chosen"
    return [Opinion(who="The run", mark=EARLY, words=f"{words[:400]}. {kept}")]


def _three(explorations: Sequence[Exploration]) -> Gallery:
    """The three pictures of each exploration that has all of them, side by side."""
    pictures: list[GalleryPicture] = []
    for one in explorations:
        drafts: list[Draft | None] = [getattr(one, line) for line in LINES]
        if any(draft is None for draft in drafts):
            continue
        for (line, words), draft in zip(LINES.items(), drafts, strict=True):
            assert draft is not None and draft.image is not None
            found = verdict(one, line)
            pictures.append(
                GalleryPicture(
                    png=draft.image.loaded,
                    caption=one.idea.text,
                    label=words,
                    note=draft.prompt,
                    good=found[0] if found else None,
                )
            )
    words = (
        "What a person's own prompt gives at once, the best of the first round of prompts, and the "
        "picture that was chosen in the end."
    )
    if any(verdict(one, "refined") for one in explorations):
        words += " Marked by a detector that sees the pixels alone."
    return Gallery(title="Before and after", pictures=pictures, intro=words, together=3)
