"""GenEval's colour classifier: CLIP ViT-L/14 zero-shot over ten colours, on the object alone.

The object is cut out by its mask onto grey (#999999) and cropped to its box; the text of a colour
is the normalised mean of three unit-length embeddings. Resizing is Pillow's, as torchvision's is
for Pillow images. The weights are OpenAI's, `openai/clip-vit-large-patch14` in transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPModel

from eval.clip import ClipEmbedder
from eval.geneval.names import COLORS
from staged.model.finite import require_finite
from staged.roles import Detection, Pixels

TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}",
             "a photo of a {color} object")  # fmt: skip
BACKGROUND = (0x99, 0x99, 0x99)


class ClipColors(ClipEmbedder):
    """Tells the colour of detected objects."""

    def __init__(
        self, model: CLIPModel, tokenizer: Any, *, device: str | torch.device = "cpu"
    ) -> None:
        """See `ClipEmbedder`."""
        super().__init__(model, tokenizer, device=device)
        self._by_class: dict[str, Tensor] = {}

    @torch.inference_mode()
    def classify(self, image: Pixels, objects: Sequence[Detection]) -> list[str]:
        """Return the colour of each object.

        Args:
            image: (h, w, 3) uint8 RGB.
            objects: Found in it.

        Raises:
            NotFiniteError: the network gave no numbers.
        """
        colors = []
        for detection in objects:
            embedding = self.image(cut_out(image, detection))
            scores = self._texts(detection.class_name) @ embedding
            require_finite(scores, f"colour scores of a {detection.class_name} are")
            colors.append(COLORS[int(scores.argmax())])
        return colors

    def _texts(self, name: str) -> Tensor:
        """Return (colours, dim), a unit-length row for each colour of a class."""
        if name not in self._by_class:
            rows = []
            for color in COLORS:
                texts = [template.format(color=color, name=name) for template in TEMPLATES]
                unit = torch.stack([self.text(text) for text in texts])
                rows.append(F.normalize(unit.mean(0), dim=0))
            self._by_class[name] = torch.stack(rows)
        return self._by_class[name]


def cut_out(image: Pixels, detection: Detection) -> NDArray[np.uint8]:
    """Return an object on grey, cropped to its box; without a mask, the crop alone.

    Args:
        image: (h, w, 3) uint8 RGB.
        detection: With a box that holds a pixel.

    Raises:
        ValueError: the box holds no pixel.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = map(round, detection.box)
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if left >= right or top >= bottom:
        raise ValueError(f"box {detection.box} of {detection.class_name} holds no pixel")
    crop = image[top:bottom, left:right]
    if detection.mask is None:
        return crop
    inside = detection.mask[top:bottom, left:right, None]
    return np.where(inside, crop, np.asarray(BACKGROUND, np.uint8))
