"""What looks at images for GenEval: a detector, and a classifier of colours where it tells none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from eval.geneval.prompt import GenEvalPrompt
from eval.geneval.scoring import to_color
from staged.roles import Detection, Detector, Pixels
from staged.shapes.sight import detect as shapes

KINDS = ("mask2former", "miniature")
MASK2FORMER = "facebook/mask2former-swin-small-coco-instance"
CLIP = "openai/clip-vit-large-patch14"


class ColorClassifier(Protocol):
    """Tells the colour of objects."""

    def classify(self, image: Pixels, objects: Sequence[Detection]) -> list[str]:
        """Return one of GenEval's ten colours for each object."""
        ...


@dataclass(frozen=True, kw_only=True)
class ObjectDetector:
    """A detector with what it needs to be used.

    Attributes:
        name: Detector and weights, as a result's variant says them.
        detector: Finds objects.
        colors: Tells their colours; None where the detector does.
    """

    name: str
    detector: Detector
    colors: ColorClassifier | None = None

    def detect(self, image: Pixels, prompt: GenEvalPrompt) -> tuple[Detection, ...]:
        """Find objects, and the colours of those whose colour the prompt's verdict asks for."""
        found = self.detector.detect(image)
        wanted = to_color(prompt, found) if self.colors else []
        if self.colors is None or not wanted:
            return found
        told = self.colors.classify(image, wanted)
        by_identity = {id(d): color for d, color in zip(wanted, told, strict=True)}
        return tuple(replace(d, color=by_identity.get(id(d), d.color)) for d in found)


class MiniatureDetector:
    """The miniature world's detector, which knows colours; its classes are kinds of shapes."""

    def detect(self, image: Pixels) -> tuple[Detection, ...]:
        """Find shapes, best fit first.

        Raises:
            ValueError: not an image of the miniature world.
        """
        return tuple(
            Detection(
                class_name=found.kind,
                box=found.box,
                score=min(found.score, 1.0),
                color=found.color,
                mask=found.mask,
            )
            for found in shapes.detect(image)
        )


def open_detector(
    kind: str, *, weights: str = MASK2FORMER, clip: str = CLIP, device: str = "auto"
) -> ObjectDetector:
    """Load what looks.

    Args:
        kind: One of `KINDS`.
        weights: Folder or Hub id of Mask2Former.
        clip: Folder or Hub id of CLIP.
        device: For both; `auto`, or a torch device.

    Raises:
        ValueError: no such kind or model.
    """
    if kind == "miniature":
        return ObjectDetector(name="miniature", detector=MiniatureDetector())
    if kind != "mask2former":
        raise ValueError(f"detector {kind!r}; expected one of {', '.join(KINDS)}")
    from eval.geneval.clip_color import ClipColors
    from eval.geneval.mask2former import Mask2FormerDetector
    from staged.devices import choose_arithmetic

    # Not the fastest: the verdicts are those of float32.
    chosen = choose_arithmetic(device, "float32")
    print(chosen.words)
    detector = Mask2FormerDetector.load(Path(weights), device=chosen.device)
    colors = ClipColors.load(Path(clip), device=chosen.device)
    return ObjectDetector(name=f"{detector.name}; {colors.name}", detector=detector, colors=colors)
