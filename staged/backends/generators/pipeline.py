"""Any text-to-image pipeline of diffusers as a generator."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from staged.backends.diffusers.finite_pictures import FinitePictures
from staged.backends.diffusers.loading import check_takes, load_pipeline, name_of
from staged.backends.generators.generator import DrawnImage, DrawOutcome, NoImage, Request
from staged.backends.generators.settings import PipelineSettings
from staged.model.finite import NotFiniteError
from staged.model.weights_hash import weights_hash


class Pipeline:
    """A loaded pipeline.

    Args:
        settings: Which one, and how it is called.

    Raises:
        ValueError: diffusers has no such pipeline, or it does not take the arguments.
    """

    alone = False

    def __init__(self, settings: PipelineSettings) -> None:
        """Load the pipeline."""
        self.settings = settings
        self._pipeline = load_pipeline(settings)
        self._pictures = FinitePictures.of(self._pipeline)
        given = {
            "width": settings.width,
            "height": settings.height,
            "num_inference_steps": settings.num_inference_steps,
            settings.guidance_argument: settings.guidance_scale,
        }
        self._arguments = {k: v for k, v in given.items() if v is not None} | settings.arguments
        names = ("prompt", "generator", *self._arguments)
        check_takes(self._pipeline, names, kind="a text-to-image")

    @property
    def name(self) -> str:
        """Model, revision and pipeline."""
        return name_of(self.settings, self._pipeline)

    def identity(self) -> Mapping[str, Any]:
        """Arguments of a call, the weights, and the settings of the sampler."""
        parts = {k: v for k, v in self._pipeline.components.items() if v is not None}
        modules = [parts[k] for k in sorted(parts) if isinstance(parts[k], torch.nn.Module)]
        scheduler = parts.get("scheduler")
        scales = [lora.scale for lora in self.settings.loras]
        return {
            "pipeline": type(self._pipeline).__name__,
            "arguments": self._arguments,
            "dtype": str(self._pipeline.dtype).removeprefix("torch."),
            "scheduler": f"{type(scheduler).__name__} {_facts(scheduler)}",
            "weights": weights_hash(modules),
            # Their weights are among these; how strong they are is not.
            **({"lora scales": scales} if scales else {}),
        }

    def draw(self, samples: Sequence[Request]) -> Iterator[tuple[Request, DrawOutcome]]:
        """Draw a batch; noise comes from the CPU, so that devices agree on it."""
        generators = [torch.Generator("cpu").manual_seed(sample.seed) for sample in samples]
        with torch.inference_mode():
            result = self._pipeline(
                prompt=[sample.prompt for sample in samples],
                generator=generators,
                **self._arguments,
            )
        withheld = getattr(result, "nsfw_content_detected", None) or [False] * len(samples)
        finite = self._pictures.take(len(samples))
        drawn = zip(samples, result.images, withheld, finite, strict=True)
        for sample, image, hidden, good in drawn:
            if not good:
                error = NotFiniteError(f"pixels of {self.name} are")
                yield sample, NoImage(reason=error.reason, detail=str(error), final=True)
            elif hidden:
                detail = f"{self.name} withheld the image"
                yield sample, NoImage(reason="content_filter", detail=detail, final=True)
            else:
                yield sample, DrawnImage(pixels=np.asarray(image.convert("RGB"), dtype=np.uint8))


def _facts(scheduler: Any) -> str:
    """A scheduler's settings as text, without where they are from."""
    config = dict(getattr(scheduler, "config", {}))
    facts = {name: value for name, value in config.items() if not name.startswith("_")}
    return json.dumps(facts, sort_keys=True, default=str)
