"""Fixed prompts and seeds, drawn by a policy as it stands: in stages, and in one shot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from staged.engine.engine import Engine
from staged.loops.rollout import step_seed
from train.reinforce.grades import Grader
from train.reinforce.record import figures_of
from train.reinforce.rollouts import Start, draw
from train.reinforce.settings import RolloutSettings


class PolicyProbe:
    """What is drawn now and then, the same each time."""

    def __init__(
        self, prompts: Sequence[str], every_iterations: int, settings: RolloutSettings
    ) -> None:
        """Plan it.

        Args:
            prompts: One picture of each, in each way.
            every_iterations: Iterations between.
            settings: How the run draws; texts and choices are the likeliest here.
        """
        self._every = every_iterations
        self._settings = replace(settings, temperature=0.0, choice_temperature=0.0)
        self._starts = [
            # Of the prompt alone: every run draws the same.
            Start(
                prompt=prompt,
                number=number,
                key=str(number),
                seed=step_seed(0, f"probe/{prompt}", 0),
            )
            for number, prompt in enumerate(prompts)
        ]

    def due(self, iteration: int, iterations: int) -> bool:
        """Whether it is time, after so many of all iterations."""
        return iteration % self._every == 0 or iteration == iterations

    def measure(self, engine: Engine, grader: Grader, iteration: int) -> dict[str, float]:
        """Draw and grade.

        Returns:
            `probe/...` as `figures_of` the way that the run draws; `probe/one_shot` and
            `probe/one_shot_right`, the reward and the share right of drawing at once, where they
            are known.
        """
        figures = self._drawn(engine, grader, self._settings, iteration)
        found = {f"probe/{name}": value for name, value in figures.items()}
        if self._settings.mode != "one-shot":
            figures = self._drawn(
                engine, grader, replace(self._settings, mode="one-shot"), iteration
            )
        for name, of in (("probe/one_shot", "reward"), ("probe/one_shot_right", "right")):
            if of in figures:
                found[name] = figures[of]
        return found

    def _drawn(
        self, engine: Engine, grader: Grader, settings: RolloutSettings, iteration: int
    ) -> dict[str, float]:
        label = f"iteration {iteration}: probe, {settings.mode}"
        ended = draw(engine, settings, self._starts, "probe", label)
        return figures_of(list(zip(ended, grader.grade(ended), strict=True)))
