"""How well an autoencoder keeps what the detector sees."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from staged.model.autoencoder import Autoencoder
from staged.model.finite import require_finite
from staged.shapes.sight.detect import detect
from staged.shapes.sight.measure import num_right
from staged.shapes.world.scene import Scene
from train.autoencoder.loss import normal_like
from train.autoencoder.scenes import render_scenes, to_unit

_BATCH_MEASURED = 64


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
    require_finite(latents, "latents are")
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
        decoded = autoencoder.decode(latents + noise * normal_like(latents, generator))
        require_finite(decoded, "decoded pictures are")
        decoded = decoded.clamp(-1, 1)
        squared += float((decoded.float() - images).square().mean((1, 2, 3)).sum())
        pictures = ((decoded.float() + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
        for scene, picture in zip(some, pictures.numpy(), strict=True):
            found = detect(picture)
            kept += num_right(scene.shapes, found) == len(scene.shapes) == len(found)
    psnr = -10 * math.log10(squared / len(scenes) / 4)  # the range -1 to 1 has a peak of 2
    return {"psnr_db": round(psnr, 2), "scenes_kept": round(kept / len(scenes), 4)}
