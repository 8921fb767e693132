"""Recipes: what the published BAGEL's own inference does for each of its jobs, by name.

Read from its `inferencer.py` and `inference.ipynb`. A grid of 50 timesteps is 49 network
evaluations. What a recipe leaves open is the checkpoint's own, as without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from staged.command_line import UsageError

MAX_THOUGHT_TOKENS: Final = 1000
"""Of a thought and of an answer."""
_FLOW: Final = {
    "num_flow_steps": 49,
    "timestep_shift": 3.0,
    "guidance_scale": 4.0,
    "guidance_renorm_min": 0.0,
}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A recipe.

    Attributes:
        words: What it is for.
        settings: Those of `DrawSettings` that it names.
        wants_images: Whether there must be input images; None leaves it to the user.
    """

    words: str
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    wants_images: bool | None = None

    def check(self, name: str, images: Sequence[Path]) -> None:
        """Make sure that input images are there, or are not.

        Raises:
            UsageError: It is the other way round.
        """
        if self.wants_images and not images:
            raise UsageError(f"--preset {name} needs an --image")
        if self.wants_images is False and images:
            raise UsageError(f"--preset {name} takes no --image; --preset edit draws onto one")


PRESETS: Final[Mapping[str, Preset]] = {
    "staged": Preset(words="plan, sketch, inspect, refine, as the checkpoint says"),
    "t2i": Preset(
        words="BAGEL's text to image",
        settings={
            **_FLOW,
            "mode": "one-shot",
            "image_guidance_scale": 1.0,
            "guidance_interval": (0.4, 1.0),
            "guidance_renorm": "global",
        },
        wants_images=False,
    ),
    "edit": Preset(
        words="BAGEL's editing of an --image",
        settings={
            **_FLOW,
            "mode": "one-shot",
            "image_guidance_scale": 2.0,
            "guidance_interval": (0.0, 1.0),
            "guidance_renorm": "text_channel",
        },
        wants_images=True,
    ),
    "understand": Preset(
        words="BAGEL's answer to a question about an --image",
        settings={"mode": "answer", "vision_only": True, "max_text_tokens": MAX_THOUGHT_TOKENS},
        wants_images=True,
    ),
}
