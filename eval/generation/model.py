"""Our checkpoints as generators: the loop of `staged generate` over a batch of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from eval.generation.samples import BenchmarkSample
from staged.backends.generators.generator import DrawOutcome
from staged.backends.lmm.attempts import AttemptLog
from staged.generate import model
from staged.generate.admission import MAX_BATCH_SIZE
from staged.generate.outcome import outcome_of
from staged.generate.settings import ModelSettings
from staged.loops.events import Event
from staged.sequence import step_text
from staged.trajectory import Sketch, Stop, Trajectory


class CheckpointGenerator:
    """A checkpoint with roles and limits.

    Args:
        settings: Which, and how it draws.
        batch_size: Trajectories that advance together, at most; None for as many as memory has room
            for. It changes none of them.
        most: As many at most come of None.
        log: Where the answers of a language model are kept that plays a role; in memory when None.
        rewrites: Words in which prompts are drawn, instead of their own; what is drawn keeps the
            prompt that was asked, and these words in its provenance.

    Raises:
        ValueError: there is no such checkpoint, a setting is out of range, or they do not fit.
    """

    alone = True

    def __init__(
        self,
        settings: ModelSettings,
        *,
        batch_size: int | None = None,
        most: int = MAX_BATCH_SIZE,
        log: AttemptLog | None = None,
        rewrites: Mapping[str, str] | None = None,
    ) -> None:
        """Look at the checkpoint; its weights are loaded when they are needed."""
        self._rewrites = rewrites or {}
        self._settings, self._batch_size, self._most = settings, batch_size, most
        self._model = model.DrawingModel(settings, log=log)
        self._model.admit(batch_size, most=most)
        self.flows = self._model.flows

    @property
    def name(self) -> str:
        """Checkpoint and mode."""
        return self._settings.name

    @property
    def weights(self) -> str:
        """SHA-256 (hex) of the model's and the autoencoder's tensors."""
        return self._model.weights

    def identity(self) -> Mapping[str, Any]:
        """Settings and flow, resolved, and weights."""
        return self._model.decides()

    def understood(self, prompts: Sequence[str]) -> list[str]:
        """Say prompts as the model is to read them.

        Raises:
            ValueError: One of them is beyond a miniature.
        """
        return self._model.understood(prompts)

    def draw(
        self, samples: Sequence[BenchmarkSample]
    ) -> Iterator[tuple[BenchmarkSample, DrawOutcome]]:
        """Draw samples; a trajectory's last picture is its image, as a user would get it."""
        prompts, seeds = [s.prompt for s in samples], [s.seed for s in samples]
        for place, trajectory in self.stream(prompts, seeds):
            yield samples[place], outcome_of(trajectory)

    def run(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        on_event: Callable[[Event], None] | None = None,
    ) -> list[Trajectory]:
        """Take prompts to their end, some side by side.

        Args:
            prompts: Any number.
            seeds: One for each.
            on_event: Told of everything as it happens.

        Returns:
            Trajectories, whose cost in `provenance` has the tokens of their texts.

        Raises:
            ValueError: One of the prompts is beyond a miniature.
        """
        ended = dict(self.stream(prompts, seeds, on_event))
        return [ended[place] for place in range(len(prompts))]

    def stream(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        on_event: Callable[[Event], None] | None = None,
    ) -> Iterator[tuple[int, Trajectory]]:
        """Do what `run` does, and give each trajectory as it ends, with its place."""
        loop = self._model.loop(self._batch_size, most=self._most)
        if self._rewrites:
            said = [self._model.heard(self._rewrites[prompt]) for prompt in prompts]
        else:
            said = self.understood(prompts)
        starts = [self._model.start(prompt) for prompt in said]
        for place, trajectory in loop.stream(starts, seeds, on_event):
            counted = self._with_text_tokens(trajectory)
            if self._rewrites:
                provenance = {**counted.provenance, "rewritten": counted.prompt}
                counted = replace(counted, prompt=prompts[place], provenance=provenance)
            yield place, counted

    def _with_text_tokens(self, trajectory: Trajectory) -> Trajectory:
        """Note what the texts cost: tokens without their markers."""
        encode = self._model.engine.tokenizer.encode
        texts = [step for step in trajectory.steps if not isinstance(step, Sketch | Stop)]
        tokens = sum(len(encode(step_text(step))) for step in texts)
        cost = {**trajectory.provenance.get("cost", {}), "text_tokens": tokens}
        return replace(trajectory, provenance={**trajectory.provenance, "cost": cost})
