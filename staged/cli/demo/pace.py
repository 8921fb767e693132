"""How much of each thing the demo does, so that it ends in time on the machine that it runs on.

Every part is sized when it begins, by what is left of the time then and by the measured speed: a
machine that became busy in between gets less to do. What was decided is kept, for a run that goes
on must do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from staged.cli.demo.sizes import FULL, QUICK, Sizes
from staged.cli.demo.speed import Speed, measure
from staged.jobs.files import read_json, write_json
from staged.jobs.progress import duration
from staged.ranges import check_range
from staged.settings import from_dict, to_dict

PROMPTS = (100, 800)
"""Least and most prompts of the data set."""
STEPS = (40, 720)
"""Of training steps."""
PER_TASK = (4, 10)
"""Of pictures that are scored of each task."""

_DATA_SHARE, _SCORE_SHARE = 0.2, 0.4  # of the time, at most; the fine-tune gets the rest
# As counted in whole runs: a picture in stages costs so many drawn at once, and one that is drawn
# alone, and said step by step, so many.
_IMAGES_A_PROMPT, _STAGED, _ALONE = 2.5, 4.5, 12.0
_WARM_UP_SHARE = 0.06
_PATIENCE = 1.15  # with a fine-tune that takes longer than was planned: then it stops
_GRACE_S = 60.0  # for the scores, which should not suffer from that

Amount = Literal["num_prompts", "num_steps", "num_per_task"]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The speed of a machine, and what was decided by it.

    Attributes:
        speed: Of this machine.
        num_prompts: Of the data set; None, here and below, where nothing is decided yet.
        num_steps: Of the fine-tune.
        num_per_task: Pictures of each task that are scored.
    """

    speed: Speed
    num_prompts: int | None = None
    num_steps: int | None = None
    num_per_task: int | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "num_prompts", "num_steps", "num_per_task", minimum=1)

    def planned(self, left_s: float) -> Pace:
        """Decide all that is not decided yet.

        Args:
            left_s: Seconds in which the parts that are not decided should be done.
        """
        speed = self.speed
        prompts, per_task = self.num_prompts, self.num_per_task
        if prompts is None:
            prompts = _within(PROMPTS, _DATA_SHARE * left_s / self._prompt_s)
            left_s -= prompts * self.speed.prompt_s
        if self.num_steps is None:
            left_s -= prompts * _IMAGES_A_PROMPT * self.speed.image_s
        if per_task is None:
            scoring_s = _SCORE_SHARE * left_s if self.num_steps is None else left_s + _GRACE_S
            per_task = _within(PER_TASK, (scoring_s - self._alone_s) / self._row_s)
        left_s -= self._alone_s + per_task * self._row_s
        steps = self.num_steps or _within(STEPS, left_s / speed.step_s)
        return replace(self, num_prompts=prompts, num_steps=steps, num_per_task=per_task)

    def decided(self, amount: Amount, left_s: float) -> Pace:
        """Decide one of them, if it is not, for a part that begins now."""
        return replace(self, **{amount: getattr(self.planned(left_s), amount)})

    def seconds(self) -> float:
        """About how long everything takes that is decided."""
        return (
            (self.num_prompts or 0) * self._prompt_s
            + (self.num_steps or 0) * self.speed.step_s
            + (self.num_per_task or 0) * self._row_s
            + self._alone_s
        )

    def in_words(self) -> str:
        """Say what is decided, in a line."""
        return (
            f"so: {self.num_prompts} prompts, {self.num_steps} training steps, "
            f"{self.num_per_task} pictures of each task; about {duration(self.seconds())} in all"
        )

    def fine_tune_in_words(self) -> str:
        """Say how long the fine-tune is, and why."""
        steps = self.num_steps or 0
        return (
            f"{steps} steps, about {duration(steps * self.speed.step_s)}: as many as this machine "
            f"has time for, and {STEPS[1]} at most."
        )

    def trained(self, num_steps: int, step_s: float | None) -> Pace:
        """Learn from the fine-tune: what it came to, and that the machine has become slower.

        Args:
            num_steps: Steps that were trained in time.
            step_s: Seconds of each; None where an earlier run trained them all.
        """
        slower = max((step_s or 0.0) / self.speed.step_s, 1.0)
        speed = replace(self.speed, picture_s=slower * self.speed.picture_s)
        return replace(self, num_steps=num_steps, speed=speed)

    def sizes(self) -> Sizes:
        """Return what is decided as the parts of the demo take it."""
        train: tuple[str, ...] = (f"num_threads={self.speed.train_threads}",)
        if self.num_steps:
            minutes = _PATIENCE * self.num_steps * self.speed.step_s / 60
            train += (
                f"num_steps={self.num_steps}",
                f"max_minutes={minutes:.3f}",
                f"optimizer.warmup_steps={max(round(_WARM_UP_SHARE * self.num_steps), 1)}",
            )
        return replace(
            FULL,
            data=(f"prompts.count={self.num_prompts}",) if self.num_prompts else (),
            train=train,
            num_per_task=self.num_per_task or FULL.num_per_task,
        )

    @property
    def _prompt_s(self) -> float:
        """A prompt of the data set, its images encoded."""
        return self.speed.prompt_s + _IMAGES_A_PROMPT * self.speed.image_s

    @property
    def _alone_s(self) -> float:
        """Drawing the prompts of the show."""
        return len(FULL.prompts) * _ALONE * self.speed.picture_s

    @property
    def _row_s(self) -> float:
        """Drawing a picture of each task at once, and two in stages."""
        return len(FULL.tasks) * (1 + 2 * _STAGED) * self.speed.picture_s


def begin(path: Path, base: str) -> Pace:
    """Take up what an earlier run decided, or measure this machine.

    Args:
        path: Of the record.
        base: Model that will be trained.

    Raises:
        ValueError: The record is damaged.
    """
    if path.is_file():
        return from_dict(Pace, read_json(path), str(path))
    return Pace(speed=measure(base))


def keep(path: Path, pace: Pace) -> None:
    """Write down what is decided."""
    write_json(path, to_dict(pace))


class Pacing:
    """Decides how much each part does as it begins, and keeps it for a run that goes on.

    Attributes:
        pace: What is decided; None where nothing is measured, and all is quick.
    """

    def __init__(self, path: Path, left_s: Callable[[], float]) -> None:
        """Begin with nothing measured.

        Args:
            path: Of the record.
            left_s: Tells how many seconds are left for parts that are not done.
        """
        self.pace: Pace | None = None
        self._path, self._left_s = path, left_s

    def measure(self, base: str) -> None:
        """Measure this machine, or take up what was; see `begin`."""
        self.pace = begin(self._path, base)
        print(f"  {self.pace.speed.in_words()}")
        print(f"  {self.pace.planned(self._left_s()).in_words()}")

    @property
    def draw_threads(self) -> int | None:
        """Threads that draw fastest; None where nothing is measured."""
        return None if self.pace is None else self.pace.speed.draw_threads

    def sizes(self, amount: Amount) -> Sizes:
        """Decide how much a part does that begins now."""
        if self.pace is None:
            return QUICK
        self._keep(self.pace.decided(amount, self._left_s()))
        return self.pace.sizes()

    def length(self) -> str:
        """How long the fine-tune is to be, in words."""
        return "" if self.pace is None else self.pace.fine_tune_in_words()

    def trained(self, num_steps: int, step_s: float | None) -> str:
        """Learn from the fine-tune, and say what became of it; see `Pace.trained`."""
        if self.pace is None:
            return ""
        slower = num_steps != self.pace.num_steps
        self._keep(self.pace.trained(num_steps, step_s))
        return f" It became slower, and {num_steps} were done in that time." if slower else ""

    def _keep(self, pace: Pace) -> None:
        self.pace = pace
        keep(self._path, pace)


def _within(bounds: tuple[int, int], wanted: float) -> int:
    least, most = bounds
    return int(min(max(wanted, least), most))
