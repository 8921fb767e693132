"""Pictures of a diffusers pipeline, looked at before it clamps them and casts them to bytes."""

from typing import Any, Self

import torch
from torch import Tensor

from staged.model.finite import all_finite


class FinitePictures:
    """Stands in a pipeline for its image processor, and tells which pictures were numbers.

    Once the processor is through, NaN is black and an infinity is white.

    Args:
        processor: Of the pipeline; everything is passed on to it.
    """

    def __init__(self, processor: Any) -> None:
        """Nothing has been seen yet."""
        self._processor = processor
        self._seen: Tensor | None = None

    @classmethod
    def of(cls, pipeline: Any) -> Self:
        """Take the place of a pipeline's image processor, once.

        Raises:
            ValueError: the pipeline has none; its failures would pass for black pictures.
        """
        processor = getattr(pipeline, "image_processor", None)
        if isinstance(processor, cls):
            return processor
        if not hasattr(processor, "postprocess"):
            raise ValueError(
                f"{type(pipeline).__name__} has no image_processor that makes its pictures, so "
                "they cannot be checked; choose another pipeline"
            )
        watched = cls(processor)
        pipeline.image_processor = watched
        return watched

    def __getattr__(self, name: str) -> Any:
        """Pass on what is not watched."""
        return getattr(self._processor, name)

    def postprocess(self, image: Any, *args: Any, **more: Any) -> Any:
        """Make pictures of (b, 3, h, w), and note which are finite; the device is not waited for.

        A pipeline may do so twice, for its safety checker too.
        """
        if isinstance(image, Tensor):
            finite = torch.stack([all_finite(one) for one in image])
            seen = self._seen
            self._seen = finite if seen is None or len(seen) != len(finite) else seen & finite
        return self._processor.postprocess(image, *args, **more)

    def take(self, count: int) -> list[bool]:
        """Tell which pictures of the call that is over were finite, and forget them.

        Raises:
            ValueError: it made another number of pictures, or made them in another way.
        """
        seen, self._seen = self._seen, None
        if seen is None or len(seen) != count:
            made = "none" if seen is None else len(seen)
            raise ValueError(f"{made} of {count} pictures passed the pipeline's image_processor")
        return [bool(finite) for finite in seen.tolist()]
