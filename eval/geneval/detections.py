"""Detections of many images in one file of JSON lines: read, and written with their verdicts.

A line is `{"metadata": …, "detections": [{"label", "box", "score", "color"?}, …]}`: the prompt's
record, and what was found in one image. `"detections": null`, with or without an `"error"`, says
that the image or the detector failed; that is unscored, and different from finding nothing.
Other keys are kept.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.geneval.names import CLASSES, COCO_NAMES, COLORS
from eval.geneval.prompt import GenEvalPrompt, parse_prompt
from eval.geneval.scoring import ImageScore, judge
from staged import strict_json
from staged.jobs.files import write_json_lines
from staged.lines import read_lines
from staged.roles import Detection

MAX_LINE_BYTES = 4 * 1024 * 1024
MAX_DETECTIONS = 10_000
_FIELDS = {"metadata": dict}
_KNOWN = {"detections": list, "error": str, "correct": bool, "reason": str}


@dataclass(frozen=True, kw_only=True)
class DetectedImage:
    """One image of the file.

    Attributes:
        record: The line as it stands.
        prompt: What the image must show.
        detections: What was found; None where nothing could be looked for.
        place: File and line, for errors.
    """

    record: dict[str, Any]
    prompt: GenEvalPrompt
    detections: tuple[Detection, ...] | None
    place: str

    def verdict(self) -> ImageScore:
        """Score the image; without detections it is unscored."""
        if self.detections is None:
            error = self.record.get("error") or "no detections"
            return ImageScore(correct=None, reason=f"unscored: {error}")
        return judge(self.prompt, self.detections)


def read_detections(path: Path) -> Iterator[DetectedImage]:
    """Read a file line by line; empty lines are passed over.

    Raises:
        ValueError: a line is not as it must be; the message begins with `FILE:LINE`.
        OSError: the file cannot be read.
    """
    for content, place in read_lines(path, max_bytes=MAX_LINE_BYTES):
        yield parse_line(content, place)


def parse_line(content: bytes, place: str) -> DetectedImage:
    """Check one line.

    Raises:
        ValueError: it is too long, no JSON, or a field is not as it must be.
    """
    record = strict_json.loads_object(content, place=place, max_bytes=MAX_LINE_BYTES)
    mine = {key: value for key, value in record.items() if key in _FIELDS | _KNOWN}
    strict_json.record(mine, place, _FIELDS, _KNOWN)
    if "detections" not in record and "error" not in record:
        near = difflib.get_close_matches("detections", record, n=1)
        hint = f"; is {near[0]!r} meant?" if near else ""
        raise ValueError(f"{place}: missing key 'detections' (null where detection failed){hint}")
    prompt = parse_prompt(record["metadata"], f"{place}: metadata")
    found = record.get("detections")
    if record.get("error") or found is None:
        return DetectedImage(record=record, prompt=prompt, detections=None, place=place)
    if len(found) > MAX_DETECTIONS:
        raise ValueError(f"{place}: {len(found)} detections; at most {MAX_DETECTIONS}")
    detections = tuple(
        _detection(value, f"{place}: detections[{index}]") for index, value in enumerate(found)
    )
    _check_labels(prompt, detections, place)
    return DetectedImage(record=record, prompt=prompt, detections=detections, place=place)


def write_verdicts(scored: Iterable[tuple[DetectedImage, ImageScore]], path: Path) -> None:
    """Write every line with `correct` (null when unscored) and `reason`.

    Raises:
        OSError: the file cannot be written.
    """
    write_json_lines(
        path,
        (
            {**line.record, "correct": verdict.correct, "reason": verdict.reason}
            for line, verdict in scored
        ),
    )


def _detection(value: Any, place: str) -> Detection:
    record = strict_json.record(
        value, place, {"label": str, "box": list, "score": float}, {"color": str}
    )
    box, score, color = record["box"], float(record["score"]), record.get("color")
    if (
        len(box) != 4
        or any(type(end) not in (int, float) for end in box)
        or not all(map(math.isfinite, box))
    ):
        raise ValueError(f"{place}.box: {box!r:.80}; expected [x1, y1, x2, y2], finite numbers")
    if not 0 <= score <= 1:
        raise ValueError(f"{place}.score: {score}; expected a number in [0, 1]")
    if color is not None and color not in COLORS:
        raise ValueError(f"{place}.color: {color!r:.40}; expected one of {', '.join(COLORS)}")
    x1, y1, x2, y2 = map(float, box)
    return Detection(class_name=record["label"], box=(x1, y1, x2, y2), score=score, color=color)


def _check_labels(prompt: GenEvalPrompt, detections: Iterable[Detection], place: str) -> None:
    # Other worlds have other classes; in GenEval's own a foreign label would never match and
    # pass for a missing object.
    if not prompt.class_names <= set(CLASSES):
        return
    for detection in detections:
        if detection.class_name not in CLASSES:
            near = difflib.get_close_matches(detection.class_name, CLASSES, n=1)
            name = COCO_NAMES.get(detection.class_name, near[0] if near else "")
            hint = f"; GenEval calls it {name!r}" if name else ""
            raise ValueError(
                f"{place}: label {detection.class_name!r:.40} is none of the 80 classes{hint}"
            )
