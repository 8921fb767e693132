"""Any diffusers editing pipeline as an image editor; FLUX.1 Kontext unless the settings differ."""

import inspect
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from staged.backends.diffusers_settings import LICENCES, DiffusersSettings
from staged.roles import Pixels, RoleError


class DiffusersEditor:
    """Plays `ImageEditor` with a diffusers pipeline.

    Args:
        settings: Which pipeline, and how it is called.
        pipeline: A pipeline that is already loaded, in place of the settings' model.

    Raises:
        ValueError: diffusers has no such pipeline, or it does not take the arguments.
    """

    def __init__(self, settings: DiffusersSettings, *, pipeline: Any | None = None) -> None:
        """Load the pipeline."""
        self.settings = settings
        if pipeline is None:
            pipeline = load_pipeline(
                settings.model,
                settings.pipeline,
                revision=settings.revision,
                dtype=settings.dtype,
                device=settings.device,
                offload=settings.offload,
            )
        self._pipeline = pipeline
        self._pipeline.set_progress_bar_config(disable=True)
        known = inspect.signature(self._pipeline.__call__).parameters
        needed = {"image", "prompt", "width", "height", "generator", "num_inference_steps"}
        for name in sorted(needed | {settings.guidance_argument, *settings.arguments}):
            if name not in known:
                raise ValueError(
                    f"{type(self._pipeline).__name__} takes no {name!r}; it takes "
                    f"{', '.join(known)}: choose an editing pipeline, or name its arguments in "
                    "guidance_argument and arguments"
                )
        self._takes_area = "max_area" in known
        self._takes_resize = "_auto_resize" in known

    @cached_property
    def name(self) -> str:
        """Model, revision and pipeline."""
        revision = f"@{self.settings.revision}" if self.settings.revision else ""
        return f"{self.settings.model}{revision} ({type(self._pipeline).__name__})"

    @property
    def licence(self) -> str:
        """Terms that the outputs carry."""
        return self.settings.licence or LICENCES[self.settings.model]

    def edit(
        self, image: Pixels | None, instruction: str, *, width: int, height: int, seed: int
    ) -> Pixels:
        """Draw the instruction onto the image, or from nothing.

        Args:
            image: (height, width, 3) uint8 RGB, or None for a first step.
            instruction: What to draw.
            width: Of the result, in pixels.
            height: Of the result, in pixels.
            seed: Of this step's noise; drawn on the CPU, so that devices agree on it.

        Raises:
            ValueError: the pipeline cannot make images of that size.
            RoleError: the pipeline refused to give an image (a safety checker).
        """
        given: Image.Image | None = None
        if image is not None:
            given = Image.fromarray(image)
        elif not self.settings.first_step_without_image:
            given = Image.new("RGB", (width, height), "white")
        arguments: dict[str, Any] = {
            "image": given,
            "prompt": instruction,
            "width": width,
            "height": height,
            "num_inference_steps": self.settings.num_inference_steps,
            self.settings.guidance_argument: self.settings.guidance_scale,
            "generator": torch.Generator("cpu").manual_seed(seed),
            **self.settings.arguments,
        }
        # Kontext keeps only the aspect of width and height, and makes its own size of them, for
        # the result (one megapixel) and for the input (its training sizes), unless it is told.
        if self._takes_area:
            arguments.setdefault("max_area", width * height)
        if self._takes_resize:
            arguments.setdefault("_auto_resize", False)
        with torch.inference_mode():
            result = self._pipeline(**arguments)
        if any(getattr(result, "nsfw_content_detected", None) or ()):
            raise RoleError("content_filter", f"{self.name} withheld the image")
        pixels = np.asarray(result.images[0].convert("RGB"), dtype=np.uint8)
        if pixels.shape != (height, width, 3):
            raise ValueError(
                f"{self.name} drew {pixels.shape[1]} x {pixels.shape[0]} instead of "
                f"{width} x {height} pixels: use sides that are multiples of 16"
            )
        return pixels


def load_pipeline(
    model: str, pipeline: str, *, revision: str | None, dtype: str, device: str, offload: bool
) -> Any:
    """Load any pipeline of diffusers.

    Args:
        model: Folder, or repository on the Hub.
        pipeline: Class in diffusers; `DiffusionPipeline` takes the class that the model names.
        revision: Commit on the Hub; a folder has none.
        dtype: Of the weights: `bfloat16`, `float16` or `float32`.
        device: Torch device.
        offload: Keep on the device only the part that runs.

    Raises:
        ValueError: diffusers has no such pipeline.
        OSError: the model cannot be had.
    """
    cls = getattr(diffusers, pipeline, None)
    if cls is None or not hasattr(cls, "from_pretrained"):
        raise ValueError(
            f"diffusers {diffusers.__version__} has no pipeline {pipeline!r}; "
            "check its name, or install a newer diffusers"
        )
    where: dict[str, Any] = {} if Path(model).is_dir() else {"revision": revision}
    loaded = cls.from_pretrained(model, torch_dtype=getattr(torch, dtype), **where)
    if offload:
        loaded.enable_model_cpu_offload(device=device)
        return loaded
    return loaded.to(device)
