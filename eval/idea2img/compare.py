"""Drawing both sides of the comparison, through the same job as `staged idea2img`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from eval.generation.samples import sample_seed
from staged.idea2img.job import IdeaTask, run_ideas
from staged.idea2img.settings import Idea2ImgSettings
from staged.ideas.exploration import Exploration
from staged.ideas.folder import EXPLORATION, load_exploration
from staged.ideas.idea import Idea
from staged.loops.idea2img.policy import IdeaPolicy
from staged.shapes.language.vague import IDEA_KINDS, sample_ideas
from staged.shapes.tasks import suite_prompts

EXPLORED: Final = "explored"
AT_ONCE: Final = "at_once"


@dataclass(frozen=True, kw_only=True)
class AskedIdea:
    """An idea of the suite.

    Attributes:
        kind: Its kind.
        text: As a person tells it.
        seed: Of its exploration: a function of the suite's seed and the text, so that it keeps its
            noise whatever is asked beside it.
    """

    kind: str
    text: str
    seed: int


def vague_ideas(num_per_kind: int, seed: int) -> list[AskedIdea]:
    """List ideas that leave much open; asking for more of each keeps those that were there.

    Args:
        num_per_kind: Of each kind.
        seed: Of everything.
    """
    return [
        AskedIdea(kind=kind, text=text, seed=sample_seed(seed, text, 0))
        for number, kind in enumerate(IDEA_KINDS)
        for text in sample_ideas(kind, num_per_kind, np.random.default_rng((seed, number)))
    ]


def suite_ideas(num_per_kind: int, seed: int) -> list[AskedIdea]:
    """List prompts of the miniature suite, held out, which leave nothing open.

    They are those of `staged eval miniature` at the same seed.
    """
    return [
        AskedIdea(kind=task, text=prompt.text, seed=sample_seed(seed, prompt.text, 0))
        for task, prompts in suite_prompts(num_per_kind, seed=seed).items()
        for prompt in prompts
    ]


IDEAS: Final = {"vague": vague_ideas, "suite": suite_ideas}
"""Which ideas can be asked for."""


def as_many_at_once(policy: IdeaPolicy) -> IdeaPolicy:
    """The policy of one round with as many prompts as another may use in all of its."""
    most = policy.num_prompts * policy.max_rounds
    number = min(most, policy.max_images or most)
    return IdeaPolicy(
        num_prompts=number,
        max_rounds=1,
        max_words=policy.max_words,
        selection=policy.selection,
        control="none",
    )


def explore(
    settings: Idea2ImgSettings,
    ideas: Sequence[AskedIdea],
    folder: Path,
    *,
    at_once: bool = True,
    advance: Callable[[], None] = lambda: None,
) -> tuple[list[Exploration | None], list[Exploration | None]]:
    """Explore every idea by rounds and at once; what is there already stays.

    Args:
        settings: Who plays, and the policy of the rounds.
        ideas: What is wanted.
        folder: Where both are kept.
        at_once: Whether as many prompts are tried at once too: what leaves nothing open cannot be
            said in so many ways.
        advance: Told of each exploration that ends.

    Returns:
        The explorations of each, in order; None where a budget left none.

    Raises:
        ValueError: The folder holds another comparison.
    """
    tasks = [
        IdeaTask(idea=Idea(parts=(idea.text,)), manual=idea.text, seed=idea.seed) for idea in ideas
    ]
    by_rounds = replace(settings, policy=replace(settings.policy, control="matched"))
    sides = [(by_rounds, EXPLORED)]
    if at_once:
        breadth = replace(settings, policy=as_many_at_once(settings.policy))
        sides.append((breadth, AT_ONCE))
    for one, name in sides:
        run_ideas(one, tasks, folder / name, done=lambda number, exploration: advance())
    return _read(folder / EXPLORED, len(tasks)), _read(folder / AT_ONCE, len(tasks))


def _read(folder: Path, number: int) -> list[Exploration | None]:
    places = (folder / f"{place:05d}" for place in range(number))
    return [load_exploration(one) if (one / EXPLORATION).is_file() else None for one in places]
