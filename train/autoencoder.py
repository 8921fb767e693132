"""Train the miniature world's autoencoder: 48-pixel scenes to 12 x 12 x 4 latents and back.

`python -m train.autoencoder configs/shapes/autoencoder.yaml num_threads=2`

A variational autoencoder with a small KL term, whose decoder also sees latents with extra noise:
what a flow model draws is never exactly on the encoder's manifold, and the picture must survive
that. Everything random in a step follows from the seed and the step's number, so a run that was
killed goes on from its last checkpoint and ends with the same bits.

b: images.  c: latent channels.  f: pixels on the side of one latent.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import datetime
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from staged import settings as job_settings
from staged.model.autoencoder import Autoencoder
from staged.model.checkpoint import load_autoencoder, save_autoencoder
from staged.model.config import AutoencoderConfig
from staged.shapes.detect import detect
from staged.shapes.measure import num_right
from staged.shapes.render import render
from staged.shapes.scene import COLORS, KINDS, Item, Scene, place, sample_background

_COUNTS = (0.02, 0.18, 0.20, 0.25, 0.35)
"""Shares of scenes with 0, 1, 2, 3 and 4 shapes: crowded ones are the harder pictures."""
_NOISE_LEVELS = (0.0, 0.1, 0.2)
"""Noise at which the result is measured, in standard deviations of the latents."""
_BATCH_MEASURED = 64


@dataclass(frozen=True, kw_only=True)
class AutoencoderJob:
    """Settings of the training.

    Attributes:
        out: Folder of the run: state, resolved settings, `ae.safetensors`, `ae.json`.
        model: Dimensions. Its scaling and shift factors are measured, not set.
        seed: Decides scenes, weights and noise.
        num_scenes: Scenes rendered once and trained on.
        num_test_scenes: Other scenes, for the final measurement.
        num_steps: Optimiser steps.
        batch_size: Images a step.
        lr: Peak learning rate; warms up, then falls along a cosine to a hundredth.
        warmup_steps: Steps of linear warm-up.
        kl_weight: Weight of the mean KL per latent against the mean L1 per channel of a pixel.
        noise: Half of the images are decoded from latents with more noise, of up to this many
            standard deviations of the latents.
        ema_decay: Decay of the averaged weights, which are what is saved.
        checkpoint_steps: Steps from one saved state to the next.
        log_steps: Steps from one printed line to the next.
        bf16: Compute in bfloat16 where that is safe.
        num_threads: Threads of the training; the last bits of the result depend on it.
    """

    out: Path = Path("out/autoencoder")
    model: AutoencoderConfig = field(
        default_factory=lambda: AutoencoderConfig(
            channels=64,
            multipliers=(1, 1, 1),
            num_blocks=1,
            latent_channels=4,
            scaling_factor=1.0,
            shift_factor=0.0,
        )
    )
    seed: int = 0
    num_scenes: int = 24_000
    num_test_scenes: int = 500
    num_steps: int = 7_000
    batch_size: int = 8
    lr: float = 1e-3
    warmup_steps: int = 100
    kl_weight: float = 0.002
    noise: float = 0.25
    ema_decay: float = 0.999
    checkpoint_steps: int = 500
    log_steps: int = 250
    bf16: bool = True
    num_threads: int = 2

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A field is out of range.
        """
        for name in ("num_scenes", "num_test_scenes", "num_steps", "batch_size", "warmup_steps",
                     "checkpoint_steps", "log_steps", "num_threads"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        for name in ("kl_weight", "noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more")
        if not 0 <= self.seed < 1 << 31:
            raise ValueError(f"seed is {self.seed}; give 0 to {(1 << 31) - 1}")
        if self.lr <= 0 or not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"lr is {self.lr} and ema_decay {self.ema_decay}; give lr above 0 and a decay "
                "from 0 to below 1"
            )


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene of none to four shapes, most of them crowded."""
    count = int(rng.choice(len(_COUNTS), p=_COUNTS))
    while True:
        items = [
            Item(
                kind=KINDS[int(rng.integers(len(KINDS)))],
                color=COLORS[int(rng.integers(len(COLORS)))],
            )
            for _ in range(count)
        ]
        shapes = place(items, rng)
        if shapes is not None:
            return Scene(shapes=shapes, background=sample_background(rng))


def sample_scenes(num_scenes: int, seed: Sequence[int]) -> list[Scene]:
    """Draw scenes from a seed; a longer list begins with the shorter one."""
    rng = np.random.default_rng(list(seed))
    return [sample_scene(rng) for _ in range(num_scenes)]


def render_scenes(scenes: Sequence[Scene]) -> Tensor:
    """Render scenes as (b, 3, 48, 48) uint8."""
    return torch.from_numpy(np.stack([render(scene).transpose(2, 0, 1) for scene in scenes]))


def to_unit(images: Tensor) -> Tensor:
    """8-bit channels to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Scalars of a step; `total` has a gradient."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor


def autoencoder_loss(
    autoencoder: Autoencoder, images: Tensor, job: AutoencoderJob, generator: torch.Generator
) -> Losses:
    """L1 of pictures decoded from noisy posterior samples, plus the weighted KL to N(0, 1).

    Args:
        autoencoder: Trained in place of its scaling: raw latents go straight to the decoder.
        images: (b, 3, height, width) float32 in [-1, 1].
        job: Weights and noise.
        generator: Source of the posterior sample and of the extra noise.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=job.bf16):
        mean, log_variance = (part.float() for part in autoencoder.encoder(images).chunk(2, dim=1))
        log_variance = log_variance.clamp(-20, 5)
        latents = mean + torch.exp(0.5 * log_variance) * _normal(mean, generator)
        share = torch.rand((len(images), 1, 1, 1), generator=generator)
        level = job.noise * (2 * share - 1).clamp(min=0) * mean.detach().std()
        latents = latents + level * _normal(mean, generator)
        decoded = autoencoder.decoder(latents).float()
    reconstruction = (decoded - images).abs().mean()
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return Losses(total=reconstruction + job.kl_weight * kl, reconstruction=reconstruction, kl=kl)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator)


class _GroupNorm(nn.GroupNorm):
    """Group norm through layer norm: torch's own CPU kernels take over half of a whole step."""

    def forward(self, x: Tensor) -> Tensor:
        groups = x.reshape(x.shape[0], self.num_groups, -1)
        normal = F.layer_norm(groups, groups.shape[-1:], eps=self.eps)
        channels = normal.view(x.shape[0], self.num_channels, -1)
        weight, bias = (p.to(x.dtype)[:, None] for p in (self.weight, self.bias))
        return torch.addcmul(bias, channels, weight).view_as(x)


def speed_up_norms(module: nn.Module) -> None:
    """Exchange a model's group norms for faster equal ones, in place, values kept."""
    for name, child in module.named_children():
        if type(child) is nn.GroupNorm:
            faster = _GroupNorm(child.num_groups, child.num_channels, eps=child.eps)
            faster.to(child.weight)
            faster.load_state_dict(child.state_dict())
            setattr(module, name, faster)
        else:
            speed_up_norms(child)


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
        """One optimiser step on images drawn from `scenes`, (n, 3, 48, 48) uint8."""
        job = self.job
        generator = torch.Generator().manual_seed(job.seed << 32 | self.step)
        chosen = torch.randint(len(scenes), (job.batch_size,), generator=generator)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, job)
        losses = autoencoder_loss(self.autoencoder, to_unit(scenes[chosen]), job, generator)
        self.optimizer.zero_grad()
        losses.total.backward()
        nn.utils.clip_grad_norm_(self.autoencoder.parameters(), 1.0)
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


@torch.inference_mode()
def measure_latents(autoencoder: Autoencoder, images: Tensor) -> tuple[float, float, float]:
    """Mean and standard deviation of raw latents, and the posterior's median one.

    Args:
        autoencoder: Encoder to measure.
        images: (n, 3, 48, 48) uint8.
    """
    means, deviations = [], []
    for batch in images.split(_BATCH_MEASURED):
        mean, log_variance = autoencoder.moments(to_unit(batch))
        means.append(mean.float())
        deviations.append(torch.exp(0.5 * log_variance.float()))
    latents = torch.cat(means)
    return float(latents.mean()), float(latents.std()), float(torch.cat(deviations).median())


@torch.inference_mode()
def measure_reconstructions(
    autoencoder: Autoencoder, scenes: Sequence[Scene], noise: float, seed: int
) -> dict[str, float]:
    """How well scenes survive encoding, noise on scaled latents, and decoding.

    Args:
        autoencoder: With its measured scaling and shift factors.
        scenes: At least one.
        noise: In standard deviations of the latents.
        seed: Decides the noise.

    Returns:
        `psnr_db`, and `scenes_kept`: the share of scenes in whose decoded pictures the detector
        finds every shape with its class and colour in its place, and nothing else.
    """
    generator = torch.Generator().manual_seed(seed)
    squared, kept = 0.0, 0
    for start in range(0, len(scenes), _BATCH_MEASURED):
        some = scenes[start : start + _BATCH_MEASURED]
        images = to_unit(render_scenes(some))
        latents = autoencoder.encode(images)
        decoded = autoencoder.decode(latents + noise * _normal(latents, generator)).clamp(-1, 1)
        squared += float((decoded.float() - images).square().mean((1, 2, 3)).sum())
        pictures = ((decoded.float() + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
        for scene, picture in zip(some, pictures.numpy(), strict=True):
            found = detect(picture)
            kept += num_right(scene.shapes, found) == len(scene.shapes) == len(found)
    psnr = -10 * math.log10(squared / len(scenes) / 4)  # the range -1 to 1 has a peak of 2
    return {"psnr_db": round(psnr, 2), "scenes_kept": round(kept / len(scenes), 4)}


def export(training: Training, scenes: Tensor) -> dict[str, Any]:
    """Write `ae.safetensors` (averaged weights, bfloat16) and `ae.json`, and measure both.

    Scaled latents of the training scenes have mean 0 and standard deviation 1 over everything.
    What is measured is the file as it reads back, in float32.

    Returns:
        What `ae.json` holds.
    """
    job = training.job
    save_autoencoder(job.out, training.average, dtype=torch.bfloat16)
    raw = load_autoencoder(job.out, job.model)
    mean, deviation, posterior = measure_latents(raw, scenes[:2_000])
    config = dataclasses.replace(job.model, shift_factor=mean, scaling_factor=1 / deviation)
    autoencoder = load_autoencoder(job.out, config)
    test = sample_scenes(job.num_test_scenes, (job.seed, 1))
    document = {
        "autoencoder": job_settings.to_dict(config),
        "metrics": {
            "num_test_scenes": len(test),
            "posterior_std": round(posterior / deviation, 4),
            **{
                f"noise_{noise}": measure_reconstructions(autoencoder, test, noise, job.seed)
                for noise in _NOISE_LEVELS
            },
        },
        "num_steps": training.step,
        "finished": training.step == job.num_steps,
        "seconds": round(training.seconds),
        "command": shlex.join(["python", "-m", "train.autoencoder", *sys.argv[1:]]),
        "settings": job_settings.to_dict(job),
        "fingerprint": job_settings.fingerprint(job),
        "torch": torch.__version__,
        "machine": f"{platform.machine()} CPU, {job.num_threads} threads",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    (job.out / "ae.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return document


def train(job: AutoencoderJob) -> dict[str, Any]:
    """Train to the end, from wherever the job's folder stands, and export.

    Returns:
        What `ae.json` holds.
    """
    torch.set_num_threads(job.num_threads)
    training = Training(job)
    job_settings.save_resolved(job, job.out / "settings.yaml")
    scenes = render_scenes(sample_scenes(job.num_scenes, (job.seed, 0)))
    while training.step < job.num_steps:
        start = time.perf_counter()
        losses = training.take_step(scenes)
        training.seconds += time.perf_counter() - start
        if training.step % job.log_steps == 0:
            print(
                f"step {training.step}/{job.num_steps}  {training.seconds:.0f} s  "
                f"L1 {losses.reconstruction.item():.4f}  KL {losses.kl.item():.3f}",
                flush=True,
            )
        if training.step % job.checkpoint_steps == 0 or training.step == job.num_steps:
            training.save()
    return export(training, scenes)


def main(argv: list[str] | None = None) -> int:
    """Run `python -m train.autoencoder CONFIG [key=value ...]`; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.autoencoder",
        description="Train the miniature world's autoencoder; an interrupted run goes on.",
        epilog=job_settings.describe(AutoencoderJob),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="YAML file, such as configs/shapes/autoencoder.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args(argv)
    job = job_settings.load(AutoencoderJob, arguments.config, arguments.overrides)
    print(json.dumps(train(job)["metrics"], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
