"""Images and prompts as unit vectors of a CLIP model."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from eval.geneval.mask2former import fingerprint
from staged.model.finite import NotFiniteError
from staged.model.weights import load_pretrained
from staged.roles import Pixels

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ClipEmbedder:
    """Embeds one image or prompt at a time, so that no score depends on its neighbours.

    Args:
        model: CLIP, in float32.
        tokenizer: Its tokenizer.
        device: Where to run; the model is moved there.
    """

    def __init__(
        self, model: CLIPModel, tokenizer: Any, *, device: str | torch.device = "cpu"
    ) -> None:
        """Prepare the model for inference."""
        self.name = f"clip, weights {fingerprint(model.state_dict())}"
        self.model = cast(Any, model).eval().to(device)
        self.tokenizer = tokenizer
        self.device = torch.device(device)
        # The images of a prompt mostly come one after the other.
        self.text: Callable[[str], Tensor] = lru_cache(maxsize=64)(self._text)

    @classmethod
    def load(
        cls,
        weights: str | Path,
        tokenizer: str | Path | None = None,
        *,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Load folders or Hub ids; weights are read from safetensors only.

        Args:
            weights: Of the model.
            tokenizer: Where it is not beside them.
            device: Where to run.

        Raises:
            ValueError: no such model or tokenizer, or its weights are not whole.
        """
        model = load_pretrained(CLIPModel, weights, what="CLIP model", dtype=torch.float32)
        tokenizer = tokenizer or weights
        try:
            # A prompt that spells the end of a text must not end there.
            tokens = CLIPTokenizer.from_pretrained(str(tokenizer), split_special_tokens=True)
        except OSError as error:
            raise ValueError(f"{tokenizer}: no tokenizer of CLIP there: {error}") from None
        return cls(model, tokens, device=device)

    @property
    def max_tokens(self) -> int:
        """Return how much of a prompt the model reads, its two marks included."""
        return int(self.model.config.text_config.max_position_embeddings)

    def truncates(self, prompt: str) -> bool:
        """Whether the model reads only the beginning of a prompt."""
        return len(self.tokenizer(prompt)["input_ids"]) > self.max_tokens

    @torch.inference_mode()
    def image(self, pixels: Pixels) -> Tensor:
        """Return a unit vector (dim,).

        Args:
            pixels: (h, w, 3) uint8 RGB.
        """
        side = self.model.config.vision_config.image_size
        inputs = to_pixels(pixels, side).to(self.device)
        features = self.model.vision_model(pixel_values=inputs).pooler_output
        return F.normalize(self.model.visual_projection(features), dim=-1)[0]

    @torch.inference_mode()
    def _text(self, prompt: str) -> Tensor:
        """Return a unit vector (dim,)."""
        tokens = self.tokenizer(
            [prompt], truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.device)
        features = self.model.text_model(**tokens).pooler_output
        return F.normalize(self.model.text_projection(features), dim=-1)[0]

    def cosine(self, pixels: Pixels, prompt: str) -> float:
        """Return the cosine of image and prompt, in [-1, 1].

        Raises:
            NotFiniteError: it is none.
        """
        cosine = float(self.image(pixels) @ self.text(prompt))
        if not math.isfinite(cosine):  # `min` and `max` would make a perfect one of NaN
            raise NotFiniteError("cosine is")
        return max(-1.0, min(1.0, cosine))

    @property
    def logit_scale(self) -> float:
        """Return the factor that the model learnt for its cosines."""
        return float(self.model.logit_scale.detach().exp())


def to_pixels(crop: NDArray[np.uint8], side: int) -> Tensor:
    """Scale the shorter side bicubically to `side`, cut out the centre, normalise.

    Args:
        crop: (h, w, 3) uint8 RGB.
        side: Of the network's input.

    Returns:
        (1, 3, side, side) float32.
    """
    height, width = crop.shape[:2]
    short = min(height, width)
    size = int(side * width / short), int(side * height / short)
    resized = Image.fromarray(crop).resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    square = np.asarray(resized.crop((left, top, left + side, top + side)), np.float32) / 255
    normal = (square - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
    return torch.from_numpy(normal).permute(2, 0, 1)[None]
