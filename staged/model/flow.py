"""Rectified flow as plain functions: times, interpolation, guidance, solver.

Time 1 is noise, time 0 is the image; velocity is `noise - latents`, so a step toward the image
subtracts it. Nothing here knows the network.

Letters: b images, n tokens, c numbers a token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from staged.model.flows import Guidance, check_shift


def shift_time(t: Tensor, shift: float) -> Tensor:
    """Bias times toward noise for larger images.

    s*t / (1 + (s - 1)*t); timestep shifting, arXiv:2403.03206.

    Args:
        t: Any shape, float in [0, 1]; 1 is noise.
        shift: Positive; 1 leaves t unchanged.

    Raises:
        ValueError: shift is not positive, or too large.
    """
    check_shift(shift)
    return shift * t / (1 + (shift - 1) * t)


def time_grid(num_flow_steps: int, shift: float) -> Tensor:
    """Solver times from noise to image.

    Args:
        num_flow_steps: Network evaluations, at least 1 (upstream's `num_timesteps` minus one).
        shift: See `shift_time`.

    Returns:
        (num_flow_steps + 1,) float32, falling from 1 to 0.

    Raises:
        ValueError: num_flow_steps is below 1.
    """
    if num_flow_steps < 1:
        raise ValueError(f"num_flow_steps is {num_flow_steps}; give at least 1")
    return shift_time(torch.linspace(1, 0, num_flow_steps + 1), shift)


def interpolate(latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The point x_t = (1 - t) * latents + t * noise.

    Args:
        latents: (n, c) clean.
        noise: (n, c) standard normal.
        t: (n,) in [0, 1].
    """
    return torch.lerp(latents, noise, t[:, None])


def velocity_target(latents: Tensor, noise: Tensor) -> Tensor:
    """What the network learns to predict at any x_t between the two."""
    return noise - latents


def guide(
    velocity: Tensor,
    without_text: Tensor,
    without_images: Tensor | None,
    guidance: Guidance,
) -> Tensor:
    """Combine the branches' velocities: text first, then images, then renormalise.

    The norm is taken image by image, so that a result never depends on its batch.

    Args:
        velocity: (b, n, c) with the full context.
        without_text: (b, n, c) without the last text.
        without_images: (b, n, c) with text only; None when the context holds no images or the
            image scale is 1.
        guidance: Scales and renormalisation.

    Returns:
        (b, n, c).
    """
    guided = torch.lerp(without_text, velocity, guidance.text_scale)
    if guidance.renorm == "text_channel":
        guided = _renormalise(guided, velocity, guidance)
    if without_images is not None and guidance.image_scale > 1:
        guided = torch.lerp(without_images, guided, guidance.image_scale)
    if guidance.renorm != "text_channel":
        guided = _renormalise(guided, velocity, guidance)
    return guided


def _renormalise(guided: Tensor, velocity: Tensor, guidance: Guidance) -> Tensor:
    dims = (-2, -1) if guidance.renorm == "global" else (-1,)
    length = torch.linalg.vector_norm(velocity, dim=dims, keepdim=True)
    guided_length = torch.linalg.vector_norm(guided, dim=dims, keepdim=True)
    # At most 1: it takes back the length that guidance added, and adds none.
    factor: Tensor = (length / (guided_length + 1e-8)).clamp(guidance.renorm_min, 1.0)
    # A length that overflowed would make the factor 0, and a velocity of 0 out of a wrong one.
    factor = factor.masked_fill(~torch.isfinite(guided_length), torch.nan)
    return guided * factor


def euler_step(x_t: Tensor, velocity: Tensor, now: float, then: float) -> Tensor:
    """Follow a velocity from one time to a later step's, in a straight line (Euler's method).

    Args:
        x_t: At `now`.
        velocity: There, shaped alike.
        now: Time of `x_t`.
        then: Below `now`; see `time_grid`.
    """
    return x_t - velocity * (now - then)
