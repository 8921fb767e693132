"""The whole job: settings to `ae.safetensors` and its record."""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
import shlex
import sys
import time
from typing import Any

import torch
from torch import Tensor

from staged import settings as job_settings
from staged.model.checkpoint import load_autoencoder, save_autoencoder
from train.autoencoder.measure import measure_latents, measure_reconstructions
from train.autoencoder.scenes import render_scenes, sample_scenes
from train.autoencoder.settings import AutoencoderJob
from train.autoencoder.training import Training

_NOISE_LEVELS = (0.0, 0.1, 0.2)
"""Noise at which the result is measured, in standard deviations of the latents."""


def export(training: Training, scenes: Tensor) -> dict[str, Any]:
    """Write `ae.safetensors` (averaged weights, bfloat16) and `ae.json`, and measure both.

    Scaled latents of the training scenes have mean 0 and standard deviation 1 over everything.
    What is measured is the file as it reads back, in float32.

    Returns:
        What `ae.json` holds.
    """
    job = training.job
    with training.averaged() as average:
        save_autoencoder(job.out, average, dtype=torch.bfloat16)
    # Bfloat16 on the disk moves the statistics, so they are taken of what was stored.
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
    job = training.job
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
