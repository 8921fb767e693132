"""The autoencoder in training, its steps and its resumable state."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from staged import settings as job_settings
from staged.model.autoencoder import Autoencoder
from staged.model.finite import require_finite
from train.autoencoder.loss import Losses, autoencoder_loss
from train.autoencoder.norms import speed_up_norms
from train.autoencoder.scenes import to_unit
from train.autoencoder.settings import AutoencoderJob


class Training:
    """The model and everything that advances with it.

    Attributes:
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
        self.job = job
        torch.manual_seed(job.seed)
        self.autoencoder = Autoencoder(job.model)
        speed_up_norms(self.autoencoder)
        self.average = copy.deepcopy(self.autoencoder).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.autoencoder.parameters(), lr=job.lr, betas=(0.9, 0.99), weight_decay=0.0
        )
        self.step, self.seconds = 0, 0.0
        if self._file.is_file():
            self._restore()

    def take_step(self, scenes: Tensor) -> Losses:
        """One optimiser step on images drawn from `scenes`, (n, 3, 48, 48) uint8.

        Raises:
            NotFiniteError: The loss or its gradient is none; the weights are as before.
        """
        job = self.job
        generator = torch.Generator().manual_seed(job.seed << 32 | self.step)
        chosen = torch.randint(len(scenes), (job.batch_size,), generator=generator)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, job)
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
        self.optimizer.step()
        # The average of the first steps is short, or it would remember the random weights.
        decay = min(job.ema_decay, (1 + self.step) / (10 + self.step))
        for average, weight in zip(
            self.average.parameters(), self.autoencoder.parameters(), strict=True
        ):
            average.lerp_(weight.detach(), 1 - decay)
        self.step += 1
        return losses

    def save(self) -> None:
        """Save the state; it replaces the earlier one only when it is whole and on the disk."""
        state = {
            "job": _comparable(self.job),
            "step": self.step,
            "seconds": self.seconds,
            "model": self.autoencoder.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        self.job.out.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._file)

    @property
    def _file(self) -> Path:
        return self.job.out / "state.pt"

    def _restore(self) -> None:
        state: dict[str, Any] = torch.load(self._file, weights_only=True)
        if state["job"] != _comparable(self.job):
            raise ValueError(
                f"{self._file} is of a run with other settings; give another folder as out, or "
                "remove the file"
            )
        self.step, self.seconds = state["step"], state["seconds"]
        self.autoencoder.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def _comparable(job: AutoencoderJob) -> str:
    """What a resumed run must share: all settings but the folder."""
    return job_settings.fingerprint(dataclasses.replace(job, out=Path("out")))


def learning_rate(step: int, job: AutoencoderJob) -> float:
    """Linear warm-up, then a cosine down to a hundredth of the peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / job.num_steps))
    return job.lr * min(1.0, (step + 1) / job.warmup_steps) * (0.01 + 0.99 * cosine)
