"""GenEval's colour classifier: CLIP ViT-L/14 zero-shot over ten colours, on the object alone.

The object is cut out by its mask onto grey (#999999) and cropped to its box; the text of a colour
is the normalised mean of three unit-length embeddings. Resizing is Pillow's, as torchvision's is
for Pillow images. The weights are OpenAI's, `openai/clip-vit-large-patch14` in transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from eval.geneval.mask2former import fingerprint
from eval.geneval.names import COLORS
from staged.model.finite import require_finite
from staged.model.weights import load_pretrained
from staged.roles import Detection, Pixels

TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}",
             "a photo of a {color} object")  # fmt: skip
BACKGROUND = (0x99, 0x99, 0x99)
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ClipColors:
    """Tells the colour of detected objects.

    Args:
        model: CLIP.
        tokenizer: Its tokenizer.
        device: Where to run; the model is moved there.
    """

    def __init__(
        self, model: CLIPModel, tokenizer: Any, *, device: str | torch.device = "cpu"
    ) -> None:
        """Prepare the model for inference."""
        self.model = cast(Any, model)
        self.model.eval()
        self.model.to(device)
        self.tokenizer = tokenizer
        self.device = torch.device(device)
        self.name = f"clip, weights {fingerprint(model.state_dict())}"
        self._by_class: dict[str, Tensor] = {}

    @classmethod
    def load(cls, source: str | Path, *, device: str | torch.device = "cpu") -> ClipColors:
        """Load a folder or a Hub id.

        Raises:
            ValueError: no such model, or its weights are not whole.
        """
        model = load_pretrained(CLIPModel, source, what="CLIP model", dtype=torch.float32)
        try:
            tokenizer = CLIPTokenizer.from_pretrained(str(source))
        except OSError as error:
            raise ValueError(f"{source}: no tokenizer of CLIP there: {error}") from None
        return cls(model, tokenizer, device=device)

    @torch.inference_mode()
    def classify(self, image: Pixels, objects: Sequence[Detection]) -> list[str]:
        """Return the colour of each object.

        Args:
            image: (h, w, 3) uint8 RGB.
            objects: Found in it.

        Raises:
            NotFiniteError: the network gave no numbers.
        """
        side = self.model.config.vision_config.image_size
        colors = []
        for detection in objects:
            pixels = to_pixels(cut_out(image, detection), side).to(self.device)
            features = self.model.vision_model(pixel_values=pixels).pooler_output
            embedding = F.normalize(self.model.visual_projection(features), dim=-1)[0]
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
                tokens = self.tokenizer(texts, padding=True, return_tensors="pt").to(self.device)
                features = self.model.text_model(**tokens).pooler_output
                unit = F.normalize(self.model.text_projection(features), dim=-1)
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
