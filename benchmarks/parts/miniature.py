"""Section miniature: the miniature's training at speed, on rendered scenes made in memory.

Packs hold whole trajectories (prompt, plan, sketch, inspection, stop) and are built beforehand by
the trainer's own code, timed apart; then the trainer's own step runs over them. So small a model
is bound by launches, not by arithmetic.
"""

from __future__ import annotations

import time
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
from torch import Tensor

from benchmarks.parts import models
from benchmarks.parts.harness import Recorder, Setup, peak_gib, reset_peak, synchronize
from staged import images
from staged.model.bagel import Bagel
from staged.model.config import AutoencoderConfig
from staged.model.layout import Grids
from staged.shapes import miniature
from staged.shapes.world.render import render
from staged.shapes.world.scene import COLORS, KINDS, Item, Scene, place, sample_background
from staged.trajectory import ImageRef, Inspection, Plan, Sketch, Stop, Trajectory
from train.ema import WeightAverage
from train.job import Trainer
from train.objective import Objective
from train.optimizer import make_optimizers
from train.packing import Pack, build_pack
from train.randomness import SampleRandom
from train.ranks import Ranks
from train.settings import OptimizerSettings, Subset, TrainSettings

_AUTOENCODER = AutoencoderConfig(multipliers=(1, 1, 1), latent_channels=4)
"""The grid and width of the shipped one; what fills the latents is the stand-in's."""


def run(setup: Setup, record: Recorder) -> None:
    """Build packs, train, and require that the loss falls.

    Raises:
        ArithmeticError: It does not.
    """
    settings = _settings(setup, num_steps=8 if setup.tiny else 300)
    examples = SceneExamples(setup, settings, count=8 if setup.tiny else 2048)
    began = time.perf_counter()
    packs, samples = _packs(examples, settings, count=2 if setup.tiny else 24)
    seconds = time.perf_counter() - began
    record.add("packing", samples / seconds, "samples/s", packs=len(packs), processes=1)

    trainer = _InMemoryTrainer(settings, examples.model, setup)
    reset_peak(setup)
    losses, moments = [], []
    for step in range(settings.num_steps):
        losses.append(trainer.train_step(packs[step % len(packs)])["loss"])
        trainer.step += 1
        synchronize(setup)
        moments.append(time.perf_counter())
    gaps = [end - start for start, end in pairwise(moments)]
    seconds = median(gaps[len(gaps) // 5 :])  # past the first allocations
    tokens = fmean(pack.layout.num_tokens for pack in packs)
    record.add("step", 1e3 * seconds, "ms", tokens_per_pack=tokens, peak_gib=peak_gib(setup))
    record.add("tokens", tokens / seconds, "tokens/s", dtype=settings.dtype)
    record.add("samples", samples / len(packs) / seconds, "samples/s")
    window = max(len(losses) // 10, 1)
    first, last = fmean(losses[:window]), fmean(losses[-window:])
    record.add("last_loss", last, "loss", first=first, steps=len(losses))
    if not last < first:
        raise ArithmeticError(f"the loss went from {first} to {last} in {len(losses)} steps")


class SceneExamples:
    """What `train.packing.build_pack` asks of data, from scenes instead of shards."""

    def __init__(self, setup: Setup, settings: TrainSettings, count: int) -> None:
        """Draw `count` scenes of one to three shapes."""
        config = miniature.config(_AUTOENCODER)
        self.model = models.build(config, setup, torch.float32)
        self.codec = models.codec(config, setup, torch.float32)
        tokenizer = miniature.tokenizer()
        self.special = tokenizer.special
        self.encode = lru_cache(maxsize=None)(tokenizer.encode)
        self.latent_dim, self.patch_dim = config.latent_token_dim, config.vision.patch_dim
        rng = np.random.default_rng(settings.seed)
        self._trajectories = [scene_trajectory(rng) for _ in range(count)]

    def __len__(self) -> int:
        return len(self._trajectories)

    @cached_property
    def _latents(self) -> Tensor:
        pictures = [trajectory.images[0].array() for trajectory in self._trajectories]
        return torch.stack(self.codec.to_latents_each(pictures)).cpu()

    def trajectory(self, sample: int) -> Trajectory:
        """One sample."""
        return self._trajectories[sample]

    def loss_weights(self, sample: int) -> tuple[float, float]:
        """Words and latents of all samples count once."""
        return 1.0, 1.0

    def grids_of(self, ref: ImageRef) -> Grids:
        """Token grids of an image."""
        _, width, height = images.probe(ref.loaded)
        return self.codec.grids(height, width)

    def latents(self, sample: int, trajectory: Trajectory, image: int) -> Tensor:
        """(n, Z) float32 latent tokens of a sample's only image."""
        return self._latents[sample]

    def patches(self, sample: int, trajectory: Trajectory, image: int) -> Tensor:
        """(m, P) float32 ViT patches of a sample's only image."""
        return self.codec.to_patches(trajectory.images[0].array())


class _InMemoryTrainer(Trainer):
    """The trainer's step without what surrounds a run: folder, shards, resume."""

    def __init__(self, settings: TrainSettings, model: Bagel, setup: Setup) -> None:
        self.settings = settings
        self.ranks, self.mesh = Ranks(), None
        self.device, self.dtype = setup.device, getattr(torch, settings.dtype)
        self.model = model.train()
        self.objective = Objective(self.model)
        self.parameters = dict(self.model.named_parameters())
        self.optimizer = make_optimizers(self.parameters, settings.optimizer, torch.float32)
        self.average = WeightAverage(self.parameters, settings.optimizer.ema_decay)
        self.step = 0


def _settings(setup: Setup, num_steps: int) -> TrainSettings:
    return TrainSettings(
        init="miniature:fresh",
        data=(Subset(path="scenes made in memory"),),
        out=Path("nowhere"),
        num_steps=num_steps,
        pack_tokens=600 if setup.tiny else 16_384,
        dtype="bfloat16",
        optimizer=OptimizerSettings(lr=2e-3, warmup_steps=2 if setup.tiny else 20),
    )


def _packs(examples: SceneExamples, settings: TrainSettings, count: int) -> tuple[list[Pack], int]:
    """Packs of about `settings.pack_tokens`, and how many samples they hold."""
    packs, samples = [], 0
    length = build_one(examples, [0], settings, 0).layout.num_tokens
    size = max(settings.pack_tokens // length, 1)
    for step in range(count):
        members = [(step * size + i) % len(examples) for i in range(size)]
        packs.append(build_one(examples, members, settings, step))
        samples += size
    return packs, samples


def build_one(
    examples: SceneExamples, members: list[int], settings: TrainSettings, step: int
) -> Pack:
    """One pack by the trainer's own code."""
    return build_pack(
        examples,  # type: ignore[arg-type]
        members,
        [SampleRandom(settings.seed, step, place) for place in range(len(members))],
        special=examples.special,
        dropout=settings.dropout,
        timestep_shift=settings.timestep_shift,
    )


def scene_trajectory(rng: np.random.Generator) -> Trajectory:
    """One round over a scene of one to three shapes."""
    shapes = None
    while shapes is None:
        items = [
            Item(kind=KINDS[rng.integers(len(KINDS))], color=COLORS[rng.integers(len(COLORS))])
            for _ in range(rng.integers(1, 4))
        ]
        shapes = place(items, rng)
    words = " and ".join(f"a {shape.color} {shape.kind}" for shape in shapes)
    picture = ImageRef.from_array(render(Scene(shapes=shapes, background=sample_background(rng))))
    return Trajectory(
        prompt=f"a photo of {words}",
        steps=(
            Plan(instruction=f"add {words}", description=f"{words} on a grey background"),
            Inspection(target="plan", verdict="accept", critique="as asked"),
            Sketch(image=picture, seed=0, num_flow_steps=1),
            Inspection(target="sketch", verdict="accept", critique=f"{words} are there"),
            Stop(),
        ),
    )
