"""The reference's folder of images: `NNNNN/metadata.jsonl` and `NNNNN/samples/NNNNN.png`.

The outer number is the prompt's index in its file, the inner one the image's index. Other tools
write the inner number with another width, and a grid of all images beside; both are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from eval.geneval.detections import MAX_LINE_BYTES
from eval.geneval.prompt import Prompt, parse_prompt
from staged import strict_json
from staged.jobs.files import write_whole

METADATA = "metadata.jsonl"
SAMPLES = "samples"
_IMAGE = re.compile(r"([0-9]+)\.png")
_FOLDER = re.compile(r"[0-9]+")


@dataclass(frozen=True, kw_only=True)
class PromptFolder:
    """The images of one prompt.

    Attributes:
        index: Of the prompt in its file.
        prompt: What its images must show.
        images: Index and path of each image that exists, by index.
    """

    index: int
    prompt: Prompt
    images: tuple[tuple[int, Path], ...]


def image_path(folder: Path, prompt_index: int, image_index: int) -> Path:
    """Return where an image belongs.

    Raises:
        ValueError: a negative index.
    """
    if min(prompt_index, image_index) < 0:
        raise ValueError(f"prompt {prompt_index}, image {image_index}; expected 0 or more")
    return folder / f"{prompt_index:05}" / SAMPLES / f"{image_index:05}.png"


def write_folders(folder: Path, prompts: Sequence[Prompt]) -> None:
    """Make a folder for each prompt, with its record; images that exist stay.

    Raises:
        ValueError: a folder holds the record of another prompt.
        OSError: the folder cannot be written.
    """
    for index, prompt in enumerate(prompts):
        path = folder / f"{index:05}" / METADATA
        if path.is_file() and _read_metadata(path) != prompt:
            raise ValueError(
                f"{path} holds another prompt than {prompt.text!r:.60}; its images would be "
                "scored against the wrong record, so choose an empty folder"
            )
        (path.parent / SAMPLES).mkdir(parents=True, exist_ok=True)
        if not path.is_file():  # whole, because several processes may be at it
            write_whole(path, strict_json.dumps(prompt.as_dict()).encode() + b"\n")


def read_folders(folder: Path) -> Iterator[PromptFolder]:
    """Read the folders in order of their numbers.

    Raises:
        ValueError: no such folder, one without `metadata.jsonl`, or an index that occurs twice.
        OSError: something cannot be read.
    """
    numbered = sorted(
        (int(path.name), path)
        for path in folder.iterdir()
        if path.is_dir() and _FOLDER.fullmatch(path.name)
    )
    if not numbered:
        raise ValueError(f"{folder}: no folders 00000, 00001, …; is it the parent that is meant?")
    _refuse_twice([index for index, _ in numbered], str(folder))
    for index, path in numbered:
        if not (path / METADATA).is_file():
            raise ValueError(f"{path}: no {METADATA}; it says what the images must show")
        images = sorted(
            (int(match[1]), image)
            for image in (path / SAMPLES).glob("*.png")
            if (match := _IMAGE.fullmatch(image.name))
        )
        _refuse_twice([number for number, _ in images], str(path / SAMPLES))
        yield PromptFolder(
            index=index, prompt=_read_metadata(path / METADATA), images=tuple(images)
        )


def _read_metadata(path: Path) -> Prompt:
    with path.open("rb") as file:
        content = file.read(MAX_LINE_BYTES + 1)
    place = f"{path}:1"
    return parse_prompt(strict_json.loads(content, place=place, max_bytes=MAX_LINE_BYTES), place)


def _refuse_twice(indices: list[int], place: str) -> None:
    for previous, index in pairwise(indices):
        if previous == index:
            raise ValueError(f"{place}: the number {index} occurs twice, with and without zeros")
