"""Losses on data that are held out, measured alike at every step of every run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from itertools import count, takewhile
from typing import Any

import numpy as np
import torch

from staged import settings as job_settings
from staged.model.loss import TokenLosses
from train.examples import Examples
from train.objective import TaskSums, kind_means, task_means, task_sums
from train.packing import MAX_FILLER, Pack, build_pack
from train.plan import PackPlan
from train.randomness import SampleRandom
from train.ranks import Ranks
from train.settings import ConditionDropout, TrainSettings
from train.stream import IDLE, in_order, numbers

_SEED = 0  # of its own: runs of other seeds are measured on the same samples, noise and times
_NOTHING_DROPPED = ConditionDropout(text=0, image=0)
_MAX_CHARS = 1000


@dataclass(frozen=True, kw_only=True)
class Best:
    """The step with the least validation loss so far, or with the best score.

    Attributes:
        step: Of the run.
        loss: There; of a score that is best when it is largest, its negative.
        of: Fingerprint of all that it depends on but the weights: others say nothing beside it.
    """

    step: int
    loss: float
    of: str

    @classmethod
    def read(cls, text: str) -> Best:
        """Take up what `HeldOut.facts` told.

        Raises:
            ValueError: It is none.
        """
        try:
            if len(text) > _MAX_CHARS:
                raise ValueError("it is too long")
            best: Best = job_settings.from_dict(cls, json.loads(text))
        except ValueError as error:
            raise ValueError(f"the least validation loss so far cannot be read: {error}") from error
        if best.step < 1 or not math.isfinite(best.loss):
            raise ValueError(f"the least validation loss so far is {best.loss} of step {best.step}")
        return best


class HeldOut:
    """Packs of held-out samples, with noise and times that belong to the samples.

    How long packs are, how many ranks share them, and a run's seed and `timestep_shift` change
    nothing but the order in which numbers are added.

    Attributes:
        best: Where the loss was least so far; None before the first step that was measured.
        fingerprint: Of all that losses and scores depend on but the weights.
    """

    def __init__(
        self, settings: TrainSettings, examples: Examples, ranks: Ranks, *, trained: Examples
    ) -> None:
        """Choose the samples.

        Args:
            settings: Of the run, with `validation`.
            examples: The data of `validation`.
            ranks: That share the work.
            trained: What the run learns from.

        Raises:
            ValueError: There are none, one is longer than a pack, or they are trained on.
        """
        assert settings.validation is not None
        if both := examples.folders.keys() & trained.folders.keys():
            raise ValueError(
                f"validation.data names {examples.folders[min(both)]}, which is trained on, so "
                "that its loss would tell nothing; name data that are held out"
            )
        self._settings, self._validation = settings, settings.validation
        self._examples, self._ranks = examples, ranks
        chosen = np.random.default_rng(_SEED).permutation(len(examples))
        chosen = chosen[: settings.validation.max_samples]
        plan = PackPlan(
            examples.lengths[chosen],
            np.ones(len(chosen)),
            pack_tokens=settings.pack_tokens,
            reserve=MAX_FILLER,
            seed=_SEED,
            name=lambda place: examples.name(int(chosen[place])),
        )
        first_epoch = takewhile(lambda pack: pack[0][1] == 0, map(plan.pack, count()))
        self._packs = [[int(chosen[place]) for place, _ in pack] for pack in first_epoch]
        told: list[Any] = [
            examples.fingerprint,
            self._validation.max_samples,
            self._validation.noised_copies,
            settings.ce_weight,
        ]
        if settings.validation.scorer is not None:
            told.append(job_settings.to_dict(settings.validation.scorer))
        self.fingerprint = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        ranks.require_same("the validation data (or its settings)", self.fingerprint)
        self.best: Best | None = None

    @property
    def best_kept(self) -> int | None:
        """Step of `best`, if its state is to be kept."""
        return self.best.step if self.best is not None and self._validation.keep_best else None

    def facts(self) -> dict[str, str]:
        """What `resume` wants to know of `best`, for a state of the run."""
        return {} if self.best is None else {"best": json.dumps(asdict(self.best))}

    def resume(self, best: str | None, *, kept: Collection[int]) -> None:
        """Take up `best` of an earlier part, unless it was measured otherwise or its state is gone.

        Args:
            best: Of `facts`.
            kept: Steps whose states are there.

        Raises:
            ValueError: It is none of `facts`.
        """
        if best is None:
            return
        found = Best.read(best)
        there = found.step in kept or not self._validation.keep_best
        self.best = found if there and found.of == self.fingerprint else None

    def due(self, step: int) -> bool:
        """Whether to measure after so many steps."""
        return step % self._validation.every_steps == 0

    @torch.no_grad()
    def measure(
        self, forward: Callable[[Pack], TokenLosses], device: torch.device
    ) -> dict[str, float]:
        """Means over the samples; all ranks must call it together.

        Args:
            forward: Losses of a pack on `device`.
            device: Of the run.

        Returns:
            The same on all ranks: `validation/loss`, `validation/ce` (nats), `validation/mse`
            (squared error a number), and both by task.

        Raises:
            ValueError: A sample cannot be read.
        """
        mine = []
        for number in numbers(range(1), len(self._packs), self._ranks.rank):
            pack = self._pack(number).to(device)
            mine.append(task_sums(forward(pack), pack))
        found: list[TaskSums] = in_order(self._ranks.gather(mine))
        means = kind_means(found)
        loss = self._settings.ce_weight * means.get("ce", 0.0) + means.get("mse", 0.0)
        figures = {"loss": loss, **means, **task_means(found)}
        return {f"validation/{name}": value for name, value in figures.items()}

    def compare(self, step: int, loss: float) -> None:
        """Take a step as the best one so far, if it is.

        Args:
            step: Steps done.
            loss: There, as `Best` has it.
        """
        # Never before the first step, where it is `init`; and nan is less than nothing.
        if step and loss < (math.inf if self.best is None else self.best.loss):
            self.best = Best(step=step, loss=loss, of=self.fingerprint)

    def _pack(self, number: int) -> Pack:
        samples = self._packs[number] if number != IDLE else []
        with self._examples.at_hand(samples):
            return build_pack(
                self._examples,
                samples,
                [SampleRandom(_SEED, sample, 0) for sample in samples],
                special=self._examples.special,
                dropout=_NOTHING_DROPPED,
                timestep_shift=1.0,
                noised_copies=self._validation.noised_copies,
                pack_tokens=self._settings.pack_tokens,
            )
