"""How much the demo does of each thing."""

from __future__ import annotations

from dataclasses import dataclass

from staged.shapes.tasks import TASKS

PROMPTS = (
    "a photo of a green star",
    "a photo of a ring and an arrow",
    "a photo of a red circle above a blue star",
    "a photo of three hearts",
    "a photo of a green ring left of a purple cross",
    "a photo of a yellow square left of a red drop, and a black arrow below the red drop",
)
"""Drawn in front of the user, with seed 0 each: not chosen for how they come out."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Amounts that decide how long the demo takes.

    Attributes:
        data: Overrides of `configs/shapes/demo_data.yaml`.
        train: Overrides of `configs/shapes/demo_train.yaml`.
        prompts: Drawn step by step.
        tasks: Tasks that are scored.
        num_per_task: Pictures of each task that are scored.
        num_flow_steps: Of a picture; None takes what suits the model.
    """

    data: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    prompts: tuple[str, ...] = PROMPTS
    tasks: tuple[str, ...] = tuple(task for task in TASKS if task != "knowledge")
    num_per_task: int = 10
    num_flow_steps: int | None = None


FULL = Sizes()
QUICK = Sizes(
    data=("prompts.count=12",),
    train=("num_steps=4", "log.every_steps=1", "checkpoint_every_steps=4"),
    prompts=PROMPTS[:1],
    tasks=("colors", "position"),
    num_per_task=1,
    num_flow_steps=4,
)
"""Every part once, in less than a minute; its numbers mean nothing."""
