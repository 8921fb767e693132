"""Where the prompts of a job come from: the miniature world's tasks, or a file."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from staged import protocol
from staged.lines import read_lines
from staged.ranges import check_range, check_weights
from staged.scene_graph import SceneGraph
from staged.shapes.tasks import ALL_TASKS, TASKS, Split, sample_prompt
from staged.shapes.world.spec import Spec
from staged.shapes.world.splits import is_held_out

_MAX_FILE_BYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Where prompts come from."""

    count: int = 1000
    """How many; growing it later adds to the same data set."""
    file: Path | None = None
    """Text file with a prompt on each line; null samples the miniature world's tasks."""
    tasks: dict[str, float] = field(default_factory=dict)
    """Task -> weight, for sampled prompts; tasks that are not named get none. Empty: those of the
    suite, all alike."""
    split: Literal["train", "test"] = "train"
    """Sampled prompts, detours and mistakes hold nothing that this split leaves to the other."""

    def __post_init__(self) -> None:
        """Check the count and the weights."""
        if self.file is not None and (self.tasks or self.split != "train"):
            raise ValueError(
                f"tasks and split are for sampled prompts, and these come from {self.file}; leave "
                "them out, or the file"
            )
        check_range(self, "count", minimum=1)
        if self.tasks:
            check_weights("tasks", self.tasks, ALL_TASKS)

    def of_units(self, seed: int) -> "PromptOf":
        """Return the prompt of every unit of a job with this seed.

        Raises:
            ValueError: As `from_file`.
        """
        if self.file is not None:
            return from_file(self.file, self.count)
        return sampled(self.tasks, self.split, seed)


@dataclass(frozen=True, kw_only=True)
class UnitPrompt:
    """One prompt.

    Attributes:
        unit: Its number in the job.
        text: What is asked for.
        task: Its task, where it has one.
    """

    unit: int
    text: str
    task: str | None = None


PromptOf = Callable[[int], UnitPrompt]
"""The prompt of a unit; always the same one for the same unit."""

Allowed = Callable[[SceneGraph], bool]
"""Whether a data set may show a scene."""


def sampled(tasks: Mapping[str, float], split: Split, seed: int) -> PromptOf:
    """Sample prompts of the miniature world, each from its own seed.

    Args:
        tasks: Task -> weight; empty for those of the suite, all alike.
        split: Which combinations they may hold.
        seed: Of the job.
    """
    names = [task for task in ALL_TASKS if tasks.get(task, 0) > 0] if tasks else list(TASKS)
    weights = np.array([tasks.get(task, 1.0) for task in names])
    shares = weights / weights.sum()

    def prompt_of(unit: int) -> UnitPrompt:
        digest = hashlib.sha256(f"{seed}/{unit}/prompt".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8]))
        task = names[int(rng.choice(len(names), p=shares))]
        return UnitPrompt(unit=unit, text=sample_prompt(task, rng, split).text, task=task)

    return prompt_of


def from_file(path: Path, count: int) -> PromptOf:
    """Read prompts, one on each line; empty lines are left out.

    Raises:
        ValueError: no UTF-8 text, too few lines, or one that is no prompt, with its number.
    """
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise ValueError(f"{path}: larger than {_MAX_FILE_BYTES} bytes")
    texts: list[str] = []
    for line in read_lines(path):
        if text := line.text().strip():
            try:
                protocol.check_text(text)
            except ValueError as error:
                raise ValueError(f"{line.place}: {error}") from None
            texts.append(text)
    if len(texts) < count:
        raise ValueError(f"{path}: {len(texts)} prompts, but prompts.count is {count}")
    return lambda unit: UnitPrompt(unit=unit, text=texts[unit])


def shown_in(split: Split) -> Allowed:
    """Return whether a scene of the miniature world has only what a split may show.

    Counts are left aside: on the way to three hearts there are two.
    """
    if split not in get_args(Split):
        raise ValueError(f"split {split!r}; expected one of {', '.join(get_args(Split))}")

    def allowed(graph: SceneGraph) -> bool:
        spec = Spec.from_graph(graph)
        things = tuple(replace(thing, number=1) for thing in spec.things)
        return split == "test" or not is_held_out(Spec(things=things, relations=spec.relations))

    return allowed
