"""Looking at a folder of images: one line of detections for each, kept as soon as it is there.

What lies in the file already is not looked at again, if image, prompt and detector are the same.
Shards take every n-th prompt and write files of their own; scored together they give what one
process gives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.geneval.detections import parse_line
from eval.geneval.eyes import Eyes
from eval.geneval.folders import PromptFolder, read_folders
from staged import images, strict_json
from staged.roles import Detection
from staged.shards.folder import write_whole

_BOX_DIGITS, _SCORE_DIGITS = 2, 6


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What was done.

    Attributes:
        new: Images looked at now.
        kept: Images whose line was there.
        failed: Of the new ones, those that could not be looked at; they are unscored.
    """

    new: int
    kept: int
    failed: int


def look_at_folder(
    folder: Path,
    out: Path,
    eyes: Eyes,
    *,
    shard: tuple[int, int] = (0, 1),
    on_image: Callable[[], None] | None = None,
) -> Looked:
    """Detect in every image of a folder in the reference's layout.

    Args:
        folder: With `NNNNN/metadata.jsonl` and `NNNNN/samples/*.png`.
        out: File of JSON lines, as `eval.geneval.detections` reads it.
        eyes: Who looks.
        shard: Which part of how many: prompts whose index leaves this remainder.
        on_image: Called after each image.

    Raises:
        ValueError: the folder is not as it must be, or the shard does not exist.
        OSError: a file cannot be read or written.
    """
    part, num_parts = shard
    if not 0 <= part < num_parts:
        raise ValueError(f"shard {part} of {num_parts}; expected 0 to {num_parts - 1}")
    there = _lines_there(out, eyes.name)
    wanted = [
        (prompt_folder, path)
        for prompt_folder in read_folders(folder)
        if prompt_folder.index % num_parts == part
        for _, path in prompt_folder.images
    ]
    keys = {path: _key(prompt_folder, path, folder) for prompt_folder, path in wanted}
    kept = [there[keys[path]] for _, path in wanted if keys[path] in there]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, b"".join(kept))
    failed = new = 0
    with out.open("ab") as file:
        for prompt_folder, path in wanted:
            if keys[path] in there:
                continue
            record = _look(prompt_folder, path, folder, eyes)
            file.write(strict_json.dumps(record).encode() + b"\n")
            file.flush()
            new += 1
            failed += record["detections"] is None
            if on_image:
                on_image()
    return Looked(new=new, kept=len(kept), failed=failed)


_Key = tuple[str, str, str]


def _key(prompt_folder: PromptFolder, path: Path, folder: Path) -> _Key:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return (
        path.relative_to(folder).as_posix(),
        sha256,
        strict_json.dumps(prompt_folder.prompt.as_dict()),
    )


def _lines_there(out: Path, detector: str) -> dict[_Key, bytes]:
    """Return finished lines of the same detector; failed ones are tried again."""
    there: dict[_Key, bytes] = {}
    if not out.is_file():
        return there
    # An interrupted write leaves half a line at the end.
    for number, content in enumerate(out.read_bytes().split(b"\n")[:-1], start=1):
        line = parse_line(content, f"{out}:{number}")
        record = line.record
        if line.detections is not None and record.get("detector") == detector:
            prompt = strict_json.dumps(line.prompt.as_dict())
            there[str(record.get("image")), str(record.get("sha256")), prompt] = content + b"\n"
    return there


def _look(prompt_folder: PromptFolder, path: Path, folder: Path, eyes: Eyes) -> dict[str, Any]:
    image, sha256, _ = _key(prompt_folder, path, folder)
    record: dict[str, Any] = {
        "metadata": prompt_folder.prompt.as_dict(),
        "image": image,
        "sha256": sha256,
        "detector": eyes.name,
    }
    try:
        found = eyes.look(images.decode(path.read_bytes()), prompt_folder.prompt)
    except ValueError as error:
        return {**record, "detections": None, "error": str(error)[:500]}
    return {**record, "detections": [_as_dict(detection) for detection in found]}


def _as_dict(detection: Detection) -> dict[str, Any]:
    record = {
        "label": detection.class_name,
        "box": [round(end, _BOX_DIGITS) for end in detection.box],
        "score": round(detection.score, _SCORE_DIGITS),
    }
    return record | ({"color": detection.color} if detection.color else {})
