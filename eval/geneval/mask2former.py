"""GenEval's detector, Mask2Former with Swin-S, through transformers instead of mmdet.

Preprocessing and postprocessing are those of mmdet's
`mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco` at test time. The network is the same; its weights
are the official ones after `eval.converters.mmdet`, or transformers' own, trained by the
paper's authors, whose scores are a variant of the metric and say so in the detector's name.

Letters: h, w image size; H, W network input size, multiples of 32; q queries; c classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation

from eval.geneval.names import CLASSES
from staged import strict_json
from staged.model.finite import require_finite
from staged.model.weights import load_pretrained
from staged.roles import Detection, Pixels

LONG_SIDE_PX, SHORT_SIDE_PX = 1333, 800
DIVISOR = 32
PAD_VALUE = 128
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
MAX_DETECTIONS = 100
MIN_KEPT = 0.1
"""Below it nothing is reported; every threshold of GenEval is above."""
SOURCE_FILE = "source.json"
_MAX_SOURCE_BYTES = 2**16
COMPUTED = r"relative_position_index$|^criterion\.empty_weight$|swin\.layernorm\."
"""What transformers computes itself, and its final norm that no output passes through."""


class Mask2FormerDetector:
    """Finds COCO's classes; plays `staged.roles.Detector`.

    Args:
        model: The network, with one label for each of the 80 classes, in COCO's order.
        weights: Where the weights come from: `mmdet` or `transformers`.
        device: Where to run; the model is moved there.

    Raises:
        ValueError: the model has another number of labels.
    """

    def __init__(
        self,
        model: Mask2FormerForUniversalSegmentation,
        *,
        weights: str,
        device: str | torch.device = "cpu",
    ) -> None:
        """Prepare the model for inference."""
        if model.config.num_labels != len(CLASSES):
            raise ValueError(
                f"the model knows {model.config.num_labels} labels; expected COCO's {len(CLASSES)} "
                "for instances, as in facebook/mask2former-swin-small-coco-instance"
            )
        self.model = cast(Any, model).eval().to(device)
        self.device = torch.device(device)
        self.name = f"mask2former, {weights} weights {fingerprint(model.state_dict())}"

    @classmethod
    def load(cls, source: str | Path, *, device: str | torch.device = "cpu") -> Mask2FormerDetector:
        """Load a folder or a Hub id.

        Raises:
            ValueError: no such model, or weights that do not fit it.
        """
        # Missing weights would be random ones, and a random detector finds nothing.
        model = load_pretrained(
            Mask2FormerForUniversalSegmentation,
            source,
            what="Mask2Former model",
            computed=COMPUTED,
            dtype=torch.float32,
        )
        path = Path(source) / SOURCE_FILE
        weights = "transformers"
        if path.is_file():
            record = strict_json.read(path, max_bytes=_MAX_SOURCE_BYTES)
            fields, optional = {"weights": str}, {"checkpoint_sha256": str}
            weights = strict_json.record(record, str(path), fields, optional)["weights"]
        return cls(model, weights=weights, device=device)

    @torch.inference_mode()
    def detect(self, image: Pixels) -> tuple[Detection, ...]:
        """Find objects, best score first; see the module for how."""
        height, width = image.shape[:2]
        pixels, (inner_height, inner_width) = preprocess(image)
        outputs = self.model(pixel_values=pixels.to(self.device))
        return postprocess(
            outputs.class_queries_logits[0],
            outputs.masks_queries_logits[0],
            input_size=(pixels.shape[2], pixels.shape[3]),
            inner_size=(inner_height, inner_width),
            image_size=(height, width),
        )


def preprocess(image: Pixels) -> tuple[Tensor, tuple[int, int]]:
    """Make the network's input.

    The sides are scaled, keeping their ratio, to at most 1333 and 800 pixels, bilinearly and
    without antialiasing as OpenCV does; then padded at the right and bottom with 128; then
    normalised, so that the padding is normalised too.

    Args:
        image: (h, w, 3) uint8 RGB.

    Returns:
        (1, 3, H, W) float32, and the height and width of the image inside it.
    """
    height, width = image.shape[:2]
    scale = min(LONG_SIDE_PX / max(height, width), SHORT_SIDE_PX / min(height, width))
    inner = int(height * scale + 0.5), int(width * scale + 0.5)
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, size=inner, mode="bilinear", align_corners=False).round()
    padded = F.pad(
        resized, (0, -inner[1] % DIVISOR, 0, -inner[0] % DIVISOR), value=float(PAD_VALUE)
    )
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (padded - mean) / std, inner


def postprocess(
    class_logits: Tensor,
    mask_logits: Tensor,
    *,
    input_size: tuple[int, int],
    inner_size: tuple[int, int],
    image_size: tuple[int, int],
) -> tuple[Detection, ...]:
    """Turn the network's output for one image into detections.

    The 100 best pairs of query and class; a score is the class's probability times the mean
    probability of the mask's pixels; masks are scaled to the input, cut to the image in it and
    scaled to the image; boxes come from masks, right and bottom exclusive.

    Args:
        class_logits: (q, c + 1), the last class being none.
        mask_logits: (q, H/4, W/4).
        input_size: H, W.
        inner_size: Size of the image inside the input.
        image_size: h, w.

    Returns:
        Detections with masks, best score first.

    Raises:
        NotFiniteError: the network gave no numbers.
    """
    # NaN passes no threshold: nothing would be found, and that is an answer.
    require_finite(class_logits, "class logits of the detector are")
    require_finite(mask_logits, "mask logits of the detector are")
    probabilities = class_logits.float().softmax(-1)[:, :-1]
    num_classes = probabilities.shape[1]
    best = probabilities.flatten().topk(min(MAX_DETECTIONS, probabilities.numel()))
    found = []
    for probability, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        # A mask can only lower the score. One mask at a time: a hundred at full size are 400 MB.
        if probability <= MIN_KEPT:
            break
        query, label = divmod(index, num_classes)
        logits = F.interpolate(
            mask_logits[query].float()[None, None], size=input_size, mode="bilinear"
        )
        logits = logits[:, :, : inner_size[0], : inner_size[1]]
        logits = F.interpolate(logits, size=image_size, mode="bilinear")[0, 0]
        mask = logits > 0
        score = probability * float((logits.sigmoid() * mask).sum() / (mask.sum() + 1e-6))
        if score > MIN_KEPT:
            found.append(
                Detection(
                    class_name=CLASSES[label],
                    box=mask_box(mask),
                    score=min(score, 1.0),
                    mask=mask.cpu().numpy(),
                )
            )
    return tuple(sorted(found, key=lambda detection: -detection.score))


def mask_box(mask: Tensor) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a mask, the latter two exclusive; zeros if empty.

    Args:
        mask: (h, w) bool.
    """
    columns, rows = (mask.any(dim).nonzero().flatten().tolist() for dim in (0, 1))
    if not columns:
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def fingerprint(state: Mapping[str, Any]) -> str:
    """Return twelve digits of the SHA-256 over names, types and values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]
