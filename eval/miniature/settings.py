"""What a miniature evaluation draws: a model, a mode, prompts, seeds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from staged.loops.policy import Inspect, Policy
from staged.shapes.tasks import TASKS, Prompt, Split, Task, sample_prompts

GENEVAL_TASKS: tuple[Task, ...] = TASKS[:6]
"""GenEval's own six; `composition` and `knowledge` go beyond them."""

Player = Literal["model", "scripted"]
Sketcher = Literal["model", "editing", "scripted"]


@dataclass(frozen=True, kw_only=True)
class MiniatureSettings:
    """One cell of a table: who draws what, how.

    Attributes:
        checkpoint: `miniature:base`, `miniature:staged`, a folder, or a Hub id.
        mode: Draw each prompt at once, or in stages.
        planner: Who plans and directs; see `staged.loops.casting.Casting`.
        inspector: Who inspects and refines.
        sketcher: Who draws.
        inspect_plan: Whether plans are inspected; a scripted inspector decides for itself.
        inspect_sketch: Whether sketches are.
        max_rounds: Plans that are sketched, at most.
        max_refinements: Of one plan, and of one round's sketch, at most.
        max_flow_steps: Network evaluations of a trajectory, at most.
        temperature: Of text.
        max_text_tokens: Of a text; the grammar's own have some sixty at most, and one that runs
            longer is cut off and tried again.
        split: Whether prompts hold what training never shows.
        tasks: Which tasks, in order.
        num_per_task: Prompts of each; a task with fewer draws each of them more often.
        images_per_prompt: Images of each prompt.
        seed: Decides prompts and noise.
        num_flow_steps: Network evaluations a sketch; None, here and below, is what
            `staged generate` takes for the checkpoint.
        guidance_scale: Over text.
        image_guidance_scale: Over images in context.
        timestep_shift: Bias of the time grid toward noise.
    """

    checkpoint: str
    mode: Literal["one-shot", "staged"] = "one-shot"
    planner: Player = "model"
    inspector: Player = "model"
    sketcher: Sketcher = "model"
    inspect_plan: Inspect = "model"
    inspect_sketch: Inspect = "model"
    max_rounds: int = 6
    max_refinements: int = 2
    max_flow_steps: int = 300
    temperature: float = 0.0
    max_text_tokens: int = 128
    split: Split = "test"
    tasks: tuple[Task, ...] = GENEVAL_TASKS
    num_per_task: int = 40
    images_per_prompt: int = 1
    seed: int = 0
    num_flow_steps: int | None = None
    guidance_scale: float | None = None
    image_guidance_scale: float | None = None
    timestep_shift: float | None = None

    def __post_init__(self) -> None:
        """Check names and ranges; the flow's are checked where it is built."""
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown or not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(
                f"tasks {', '.join(self.tasks)!r}: give each once, of {', '.join(TASKS)}"
            )
        for name in ("num_per_task", "images_per_prompt"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; give 0 or more")
        if self.split not in get_args(Split):
            raise ValueError(f"split is {self.split!r}; give {' or '.join(get_args(Split))}")
        if self.mode == "one-shot" and self.planner == "scripted":
            raise ValueError("planner scripted: one-shot mode plans nothing; give mode staged")
        self.policy()

    def policy(self) -> Policy:
        """The loop's limits, before the casting has its say."""
        return Policy(
            mode=self.mode,
            max_rounds=self.max_rounds,
            max_refinements=self.max_refinements,
            max_flow_steps=self.max_flow_steps,
            inspect_plan=self.inspect_plan,
            inspect_sketch=self.inspect_sketch,
        )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image to be drawn.

    Attributes:
        key: Its name: task, number of the prompt, number of the image.
        prompt: Text, task and meaning.
        seed: Of the image; a function of the settings' seed, the prompt and the image's number,
            so that every model gets the same noise.
    """

    key: str
    prompt: Prompt
    seed: int


def samples(settings: MiniatureSettings) -> tuple[Sample, ...]:
    """List every sample; asking for more keeps those that were there before."""
    listed: list[Sample] = []
    for task in settings.tasks:
        rng = np.random.default_rng((settings.seed, TASKS.index(task)))
        prompts = sample_prompts(settings.num_per_task, rng, split=settings.split, tasks=(task,))
        wanted = settings.num_per_task * settings.images_per_prompt
        for image in range(-(-wanted // len(prompts))):
            listed += [
                Sample(
                    key=f"{task}-{index:04d}-{image:03d}",
                    prompt=prompt,
                    seed=_seed(settings.seed, prompt.text, image),
                )
                for index, prompt in enumerate(prompts)
            ]
    return tuple(listed)


def _seed(seed: int, prompt: str, image: int) -> int:
    text = f"{seed}/{image}/{prompt}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest())
