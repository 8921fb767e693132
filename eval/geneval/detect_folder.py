"""Looking at a folder of images: one line of detections for each, kept as soon as it is there.

What lies in the file already is not looked at again, if image, prompt and detector are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.downloads import file_sha256
from eval.geneval.detections import parse_line
from eval.geneval.detector import ObjectDetector
from eval.geneval.folders import read_folders
from eval.geneval.prompt import GenEvalPrompt
from eval.kept import Keep, KeptLine, Key, fill
from eval.numbered import no_images
from staged import images, strict_json
from staged.jobs.rank import Rank
from staged.roles import Detection

_BOX_DIGITS, _SCORE_DIGITS = 2, 6


@dataclass(frozen=True, kw_only=True)
class DetectionCounts:
    """What was done.

    Attributes:
        new: Images looked at now.
        kept: Images whose line was there.
        failed: Of the new ones, those that could not be looked at; they are unscored.
        detected: Images with detections in the whole file; None while lines of other processes are
            missing.
        without_images: Prompts that have none.
    """

    new: int
    kept: int
    failed: int
    detected: int | None
    without_images: int


@dataclass(frozen=True)
class _Image:
    """An image with the beginning of the line that it will have."""

    prompt: GenEvalPrompt
    path: Path
    record: dict[str, Any]


def detect_in_folder(
    folder: Path, out: Path, detector: ObjectDetector, *, rank: Rank | None = None
) -> DetectionCounts:
    """Detect in every image of a folder in the reference's layout.

    Args:
        folder: With `NNNNN/metadata.jsonl` and `NNNNN/samples/*.png`.
        out: File of JSON lines, as `eval.geneval.detections` reads it.
        detector: What looks.
        rank: Which of the images are this process's; all by default.

    Raises:
        ValueError: the folder is not as it must be or has no image, or a line of the file is not
            as it must be.
        OSError: a file cannot be read or written.
    """
    folders = list(read_folders(folder))
    if not any(each.images for each in folders):
        raise no_images(folder)
    wanted = [
        _Image(
            each.prompt,
            path,
            {
                "metadata": each.prompt.as_dict(),
                "image": path.relative_to(folder).as_posix(),
                "sha256": file_sha256(path),
                "detector": detector.name,
            },
        )
        for each in folders
        for _, path in each.images
    ]
    failed = 0

    def read(line: bytes, place: str) -> KeptLine:
        there = parse_line(line, place)
        # The prompt as it was understood, however its record was written.
        record = {**there.record, "metadata": there.prompt.as_dict()}
        return KeptLine(key=_key(record), failed=there.detections is None)

    def produce(missing: list[int], keep: Keep) -> None:
        nonlocal failed
        for index in missing:
            found = _detect(wanted[index], detector)
            failed += found["detections"] is None
            keep(index, {**wanted[index].record, **found})

    keys = [_key(image.record) for image in wanted]
    filled = fill(out, keys, read, produce, rank=rank or Rank())
    detected = None
    if filled.lines is not None:
        detected = sum(parse_line(line, str(out)).detections is not None for line in filled.lines)
    return DetectionCounts(
        new=filled.new,
        kept=filled.kept,
        failed=failed,
        detected=detected,
        without_images=sum(not each.images for each in folders),
    )


def _key(record: Mapping[str, Any]) -> Key:
    names = ("metadata", "image", "sha256", "detector")
    return tuple(strict_json.dumps(record.get(name)) for name in names)


def _detect(image: _Image, detector: ObjectDetector) -> dict[str, Any]:
    try:
        found = detector.detect(images.decode_file(image.path), image.prompt)
    except ValueError as error:
        return {"detections": None, "error": str(error)[:500]}
    return {"detections": [_as_dict(detection) for detection in found]}


def _as_dict(detection: Detection) -> dict[str, Any]:
    record = {
        "label": detection.class_name,
        "box": [round(end, _BOX_DIGITS) for end in detection.box],
        "score": round(detection.score, _SCORE_DIGITS),
    }
    return record | ({"color": detection.color} if detection.color else {})
