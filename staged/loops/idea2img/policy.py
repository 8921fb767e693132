"""How an image model is explored: how many prompts and rounds, and how pictures are judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from staged.ideas.exploration import MAX_DRAFTS, MAX_ROUNDS
from staged.ranges import check_choices, check_range

Selection = Literal["scores", "pairs"]
Control = Literal["none", "one", "matched"]
"""What is drawn from a person's own prompt beside: nothing, one picture, or as many as explored."""


@dataclass(frozen=True, kw_only=True)
class IdeaPolicy:
    """Limits of an exploration, and what it does beyond the published one."""

    num_prompts: int = 3
    """Prompts a round, one picture each."""
    max_rounds: int = 3
    """Rounds, at most."""
    max_words: int = 50
    """Of a prompt, at most."""
    selection: Selection = "scores"
    """`scores` asks for a score of each draft and the best of the round, in the end for the best of
    all rounds; `pairs` compares two pictures at a time in both orders, and a picture gives way only
    to one that is preferred in both, so the best of all rounds so far is kept."""
    checklist: bool = False
    """Write yes/no questions first, ask them about the best picture after each round, stop when
    all hold, and otherwise say in the feedback which do not. Needs `pairs`."""
    edit: bool = False
    """Let the best picture be edited instead of drawing anew, where there is somebody who edits.
    Needs `pairs`."""
    onto_idea: bool = False
    """Draw onto the first image of an idea that has one, as image-to-image models do."""
    max_images: int | None = None
    """Pictures of an idea, at most; a round begins only where all of its own fit in."""
    max_attempts: int = 2
    """Times that one step is tried before it fails, beside what a client repeats by itself."""
    control: Control = "one"
    """What is drawn from a person's own prompt, to compare with; counts toward no limit."""

    def __post_init__(self) -> None:
        """Check names and ranges.

        Raises:
            ValueError: A value is out of range, or values contradict one another.
        """
        check_choices(self, selection=Selection, control=Control)
        check_range(self, "num_prompts", minimum=1, maximum=MAX_DRAFTS)
        check_range(self, "max_rounds", minimum=1, maximum=MAX_ROUNDS)
        check_range(self, "max_words", "max_attempts", minimum=1)
        check_range(self, "max_images", minimum=1)
        for name in ("checklist", "edit"):
            if getattr(self, name) and self.selection != "pairs":
                raise ValueError(f"{name} is about the best picture so far: set selection to pairs")
        if self.max_images is not None and self.max_images < self.num_prompts:
            raise ValueError(
                f"max_images is {self.max_images}, and a round has {self.num_prompts} pictures "
                "(num_prompts): nothing could be drawn; raise it"
            )

    def another(self, rounds: int, drafts: int) -> bool:
        """Whether another round may begin.

        Args:
            rounds: Rounds so far.
            drafts: Their pictures.
        """
        room = self.max_images is None or drafts + self.num_prompts <= self.max_images
        return rounds < self.max_rounds and room


PRESETS: Final[Mapping[str, IdeaPolicy]] = {
    "paper": IdeaPolicy(),
    "best": IdeaPolicy(max_rounds=5, selection="pairs", checklist=True, edit=True, max_images=12),
}
"""`paper`: three rounds of three prompts, scored, with feedback, as published (arXiv 2310.08541).
`best`: pairs, a checklist and edits, up to twelve pictures and fewer where all holds before."""
