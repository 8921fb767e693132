"""The autoencoder in training, its steps and its resumable state."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from staged import settings as job_settings
from staged.devices import settle
from staged.model.autoencoder import Autoencoder
from staged.model.finite import require_finite
from train.autoencoder.loss import Losses, autoencoder_loss
from train.autoencoder.norms import speed_up_norms
from train.autoencoder.scenes import to_unit
from train.autoencoder.settings import AutoencoderJob
from train.ema import WeightAverage, averaged
from train.optimizer import Optimizers
from train.state import RunState


class Training:
    """The model and everything that advances with it.

    Attributes:
        job: Settings, with the precision that was chosen.
        autoencoder: The weights in training.
        average: The averaged weights.
        step: Steps taken.
        seconds: Time they took, over all runs.
    """

    def __init__(self, job: AutoencoderJob) -> None:
        """Start afresh, or from the state that the job's folder holds.

        Raises:
            ValueError: The folder holds a run with other settings.
        """
        self._state = RunState(job.out)
        self.job = job = settle(job, begun=self._state.facts().get("dtype"))
        torch.manual_seed(job.seed)
        self.autoencoder = Autoencoder(job.model)
        speed_up_norms(self.autoencoder)
        self._parameters = dict(self.autoencoder.named_parameters())
        self.average = WeightAverage(self._parameters, job.ema_decay)
        self.optimizer = Optimizers(
            torch.optim.AdamW(
                self._parameters.values(), lr=job.lr, betas=(0.9, 0.99), weight_decay=0.0
            )
        )
        self.step, self.seconds = 0, 0.0
        if (old := job.out / "state.pt").exists():
            raise ValueError(
                f"{old} is the state of an older version, which is not read; give another folder "
                "as out, or remove the file to begin anew"
            )
        if self._state.steps():
            self._restore()

    @contextmanager
    def averaged(self) -> Iterator[Autoencoder]:
        """The autoencoder with its averaged weights, for a while."""
        with averaged(self._parameters, self.average):
            yield self.autoencoder

    def take_step(self, scenes: Tensor) -> Losses:
        """One optimiser step on images drawn from `scenes`, (n, 3, 48, 48) uint8.

        Raises:
            NotFiniteError: The loss or its gradient is none; the weights are as before.
        """
        job = self.job
        # One a step: a run that goes on draws what it would have drawn.
        generator = torch.Generator().manual_seed(job.seed << 32 | self.step)
        chosen = torch.randint(len(scenes), (job.batch_size,), generator=generator)
        losses = autoencoder_loss(self.autoencoder, to_unit(scenes[chosen]), job, generator)
        self.optimizer.zero_grad()
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(self.autoencoder.parameters(), 1.0)
        # Before the weights change: the last state that was saved stays one to go on from.
        require_finite(
            torch.stack([losses.total.detach(), norm]),
            f"loss {losses.total.item():g} and gradient norm {norm.item():g} of step {self.step} "
            f"are, with lr {job.lr:g},",
        )
        self.optimizer.step(learning_rate(self.step, job))
        self.average.update(self._parameters.values(), self.step)
        self.step += 1
        return losses

    def save(self) -> None:
        """Save the state; the earlier one stays until it is whole and on the disk.

        Raises:
            OSError: It cannot be written.
        """
        facts = {
            "job": _comparable(self.job),
            "dtype": self.job.dtype,
            "seconds": repr(self.seconds),
        }
        self._state.save(self.step, self._parameters, self.optimizer, self.average, facts)
        self._state.finish()

    def _restore(self) -> None:
        facts = self._state.facts()
        if facts.get("job") != _comparable(self.job):
            raise ValueError(
                f"{self._state.folder} is of a run with other settings; give another folder as "
                "out, or remove it"
            )
        self.step = self._state.load(self._parameters, self.optimizer, self.average)
        self.seconds = float(facts["seconds"])


def _comparable(job: AutoencoderJob) -> str:
    """What a resumed run must share: all settings but the folder."""
    return job_settings.fingerprint(dataclasses.replace(job, out=Path("out")))


def learning_rate(step: int, job: AutoencoderJob) -> float:
    """Linear warm-up, then a cosine down to a hundredth of the peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / job.num_steps))
    return job.lr * min(1.0, (step + 1) / job.warmup_steps) * (0.01 + 0.99 * cosine)
