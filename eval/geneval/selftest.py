"""Looking at images whose verdicts are known, before any score is believed.

A detector with random weights, swapped channels or a wrong threshold does not fail: it finds
nothing, or too much, and every score is quietly low. So each golden image comes with a prompt and
with the verdict that a sound detector gives, and one wrong verdict is enough to refuse to score.

The miniature world draws its own golden images. For photographs, give a folder with
`golden.jsonl`: lines `{"image": "cat.jpg", "metadata": {…}, "correct": true}` whose images lie
beside it, about a dozen, some of them correct and some not, with counts and colours among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.geneval.detections import MAX_LINE_BYTES
from eval.geneval.detector import ObjectDetector
from eval.geneval.prompt import GenEvalPrompt, parse_prompt
from eval.geneval.scoring import judge
from staged import images, strict_json
from staged.roles import Pixels
from staged.shapes.world.render import render
from staged.shapes.world.scene import COLORS, KINDS, Color, Kind, Scene, Shape

GOLDEN_FILE = "golden.jsonl"
_GREY = (172, 172, 172)
_PLACES = ((12, 12), (36, 12), (12, 36), (36, 36))


@dataclass(frozen=True, kw_only=True)
class GoldenImage:
    """An image and the verdict that a sound detector gives.

    Attributes:
        name: For messages.
        pixels: The image.
        prompt: What it is asked to show.
        correct: Whether it does.
    """

    name: str
    pixels: Pixels
    prompt: GenEvalPrompt
    correct: bool


def check(detector: ObjectDetector, golden: Sequence[GoldenImage]) -> None:
    """Refuse a detector that judges a golden image wrongly.

    Raises:
        ValueError: they do; or the images could not tell, because all verdicts are alike.
    """
    if {image.correct for image in golden} != {True, False}:
        raise ValueError(
            f"{len(golden)} golden images with one verdict alone; give some that are correct and "
            "some that are not, or a detector that finds nothing (or everything) would pass"
        )
    wrong = []
    for image in golden:
        verdict = judge(image.prompt, detector.detect(image.pixels, image.prompt))
        if verdict.correct is not image.correct:
            found = verdict.reason or "everything that was asked for"
            wrong.append(f"{image.name} ({image.prompt.text!r}): {found}")
    if wrong:
        raise ValueError(
            f"the detector ({detector.name}) is wrong about {len(wrong)} of {len(golden)} golden "
            f"images, so it is not used; the first: {wrong[0]}. Check its weights, the order of "
            "colour channels and its thresholds"
        )


def read_golden(folder: Path) -> list[GoldenImage]:
    """Read `golden.jsonl` and the images beside it.

    Raises:
        ValueError: a line is not as it must be (the message begins with `FILE:LINE`).
        OSError: a file cannot be read.
    """
    path = folder / GOLDEN_FILE
    golden = []
    fields = {"image": str, "metadata": dict, "correct": bool}
    for record, place in strict_json.read_records(path, fields, max_bytes=MAX_LINE_BYTES):
        name = record["image"]
        if Path(name).name != name:
            raise ValueError(f"{place}.image: {name!r:.60}; expected a file beside {GOLDEN_FILE}")
        golden.append(
            GoldenImage(
                name=name,
                pixels=images.decode_file(folder / name),
                prompt=parse_prompt(record["metadata"], f"{place}: metadata"),
                correct=record["correct"],
            )
        )
    return golden


def miniature_golden() -> list[GoldenImage]:
    """Draw golden images of the miniature world: every kind and colour, counts and places."""
    golden = []
    for index, kind in enumerate(KINDS):
        color, other = COLORS[index % len(COLORS)], COLORS[(index + 4) % len(COLORS)]
        picture = _picture((kind, color))
        golden.append(_golden("single_object", picture, True, [_thing(kind)]))
        golden.append(_golden("colors", picture, True, [_thing(kind, color=color)]))
        golden.append(_golden("colors", picture, False, [_thing(kind, color=other)]))
        golden.append(_golden("single_object", picture, False, [_thing(KINDS[index - 1])]))
    for count in (2, 3, 4):
        stars: list[tuple[Kind, Color]] = [("star", "blue")] * count
        picture = _picture(*stars)
        for asked in (2, 3, 4):
            fewer = [_thing("star", count=asked + 1)]
            wanted = [_thing("star", count=asked)]
            golden.append(_golden("counting", picture, asked == count, wanted, fewer))
    side_by_side = _picture(("heart", "red"), ("ring", "black"))
    for relation, holds in (("right of", True), ("left of", False), ("above", False)):
        asked_for = [_thing("heart"), {**_thing("ring"), "position": [relation, 0]}]
        golden.append(_golden("position", side_by_side, holds, asked_for))
    return golden


def _thing(kind: str, *, count: int = 1, color: str | None = None) -> dict[str, Any]:
    return {"class": kind, "count": count} | ({"color": color} if color else {})


def _golden(
    tag: str,
    picture: tuple[str, Pixels],
    correct: bool,
    include: list[dict[str, Any]],
    exclude: list[dict[str, Any]] | None = None,
) -> GoldenImage:
    name, pixels = picture
    record = {"tag": tag, "include": include, "prompt": f"{tag}: {strict_json.dumps(include)}"}
    prompt = parse_prompt(record | ({"exclude": exclude} if exclude else {}), name)
    return GoldenImage(name=name, pixels=pixels, prompt=prompt, correct=correct)


def _picture(*looks: tuple[Kind, Color]) -> tuple[str, Pixels]:
    shapes = tuple(
        Shape(kind=kind, color=color, size="large", x=x, y=y)
        for (kind, color), (x, y) in zip(looks, _PLACES, strict=False)
    )
    name = " and ".join(f"{color} {kind}" for kind, color in looks)
    return name, render(Scene(shapes=shapes, background=_GREY))
