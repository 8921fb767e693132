"""Scenes to train on, as pixels.

b: images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from staged.shapes.world.render import render
from staged.shapes.world.scene import Scene, scatter

_COUNTS = (0.02, 0.18, 0.20, 0.25, 0.35)
"""Shares of scenes with 0, 1, 2, 3 and 4 shapes: crowded ones are the harder pictures."""


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene of none to four shapes, most of them crowded."""
    count = int(rng.choice(len(_COUNTS), p=_COUNTS))
    while True:
        if scene := scatter(count, rng):
            return scene


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
