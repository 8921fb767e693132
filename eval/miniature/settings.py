"""What a miniature evaluation draws: a model, a mode, prompts, seeds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from eval.generation.samples import sample_seed
from eval.miniature.rewrites import RewriteSettings
from eval.search.settings import SearchSettings
from staged.command_line import MAX_SEED
from staged.generate.settings import ModelSettings
from staged.loops.idea2img.policy import IdeaPolicy
from staged.ranges import check_choices, check_range
from staged.shapes.tasks import ALL_TASKS, TASKS, Split, Task, TaskPrompt, suite_prompts

GENEVAL_TASKS: tuple[Task, ...] = TASKS[:6]
"""GenEval's own six; `composition` and `knowledge` go beyond them."""


@dataclass(frozen=True, kw_only=True)
class MiniatureSettings(ModelSettings):
    """One cell of a table: who draws what, how.

    Attributes:
        max_text_tokens: Of a text; the grammar's own have some sixty at most, and one that runs
            longer is cut off and tried again.
        split: Whether prompts hold what training never shows.
        tasks: Which tasks, in order.
        num_per_task: Prompts of each, all different; a task may have fewer (`counting` has four
            that training never shows).
        images_per_prompt: Images of each prompt.
        seed: Decides prompts and noise.
        search: How many candidates are drawn of each image, and who chooses; None draws one.
        explore: Lets the miniature world's language model explore prompts for each image, as
            Idea2Img does; None draws the prompt itself.
        rewrites: Other words in which prompts are drawn; None draws them as they are asked.
    """

    max_text_tokens: int = 128
    split: Split = "test"
    tasks: tuple[Task, ...] = GENEVAL_TASKS
    num_per_task: int = 40
    images_per_prompt: int = 1
    seed: int = 0
    search: SearchSettings | None = None
    explore: IdeaPolicy | None = None
    rewrites: RewriteSettings | None = None

    def __post_init__(self) -> None:
        """Check names and ranges; the flow's are checked where it is built."""
        unknown = [task for task in self.tasks if task not in ALL_TASKS]
        if unknown or not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(
                f"tasks {', '.join(self.tasks)!r}: give each once, of {', '.join(ALL_TASKS)}"
            )
        check_range(self, "num_per_task", "images_per_prompt", minimum=1)
        check_range(self, "seed", minimum=0, maximum=MAX_SEED)
        if self.explore is not None and (self.search or self.rewrites):
            raise ValueError("explore writes its own prompts and chooses by itself: leave search "
                             "and rewrites out")  # fmt: skip
        if self.explore is not None and self.asks_lmm:
            raise ValueError("explore: no role inside a drawing can be a language model's")
        check_choices(self, split=Split)
        ModelSettings.__post_init__(self)

    @property
    def name(self) -> str:
        """Checkpoint, mode and search, to stand in a sentence."""
        parts = [super().name]
        if self.search is not None:
            parts.append(self.search.words)
        if self.explore is not None:
            parts.append(f"explored {self.explore.num_prompts} x {self.explore.max_rounds}")
        if self.rewrites is not None:
            parts.append("rewritten")
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class MiniatureSample:
    """One image to be drawn.

    Attributes:
        key: Its name: task, number of the prompt, number of the image.
        prompt: Text, task and meaning.
        seed: Of the image; a function of the settings' seed, the prompt and the image's number,
            so that every model gets the same noise.
    """

    key: str
    prompt: TaskPrompt
    seed: int


def short_tasks(settings: MiniatureSettings) -> dict[str, int]:
    """Return tasks that have fewer prompts than are asked for, with how many they have."""
    numbers = Counter(sample.prompt.task for sample in samples(settings))
    each = settings.images_per_prompt
    return {
        task: number // each
        for task, number in numbers.items()
        if number < settings.num_per_task * each
    }


def samples(settings: MiniatureSettings) -> tuple[MiniatureSample, ...]:
    """List every sample, each prompt as often as any other.

    Asking for more keeps those that were there before.
    """
    listed: list[MiniatureSample] = []
    suite = suite_prompts(
        settings.num_per_task, seed=settings.seed, split=settings.split, tasks=settings.tasks
    )
    for task, prompts in suite.items():
        for image in range(settings.images_per_prompt):
            listed += [
                MiniatureSample(
                    key=f"{task}-{index:04d}-{image:03d}",
                    prompt=prompt,
                    seed=sample_seed(settings.seed, prompt.text, image),
                )
                for index, prompt in enumerate(prompts)
            ]
    return tuple(listed)
