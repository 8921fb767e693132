"""The reference's folder of images: `NNNNN/metadata.jsonl` and `NNNNN/samples/NNNNN.png`.

The outer number is the prompt's index in its file, the inner one the image's index. What others
make of this layout is read too; see `eval.numbered`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.geneval.detections import MAX_LINE_BYTES
from eval.geneval.prompt import GenEvalPrompt, parse_prompt
from eval.numbered import METADATA, SAMPLES, numbered_folders
from staged import strict_json
from staged.jobs.files import write_json


@dataclass(frozen=True, kw_only=True)
class PromptFolder:
    """The images of one prompt.

    Attributes:
        index: Of the prompt in its file.
        prompt: What its images must show.
        images: Index and path of each image that exists, by index.
    """

    index: int
    prompt: GenEvalPrompt
    images: tuple[tuple[int, Path], ...]


def image_path(folder: Path, prompt_index: int, image_index: int) -> Path:
    """Return where an image belongs.

    Raises:
        ValueError: a negative index.
    """
    if min(prompt_index, image_index) < 0:
        raise ValueError(f"prompt {prompt_index}, image {image_index}; expected 0 or more")
    return folder / f"{prompt_index:05}" / SAMPLES / f"{image_index:05}.png"


def write_folders(folder: Path, prompts: Sequence[GenEvalPrompt]) -> None:
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
            write_json(path, prompt.as_dict())


def read_folders(folder: Path) -> Iterator[PromptFolder]:
    """Read the folders in order of their numbers.

    Raises:
        ValueError: the folder is not as it must be.
        OSError: something cannot be read.
    """
    for each in numbered_folders(folder):
        yield PromptFolder(
            index=each.index,
            prompt=_read_metadata(each.metadata),
            images=tuple(each.images.items()),
        )


def _read_metadata(path: Path) -> GenEvalPrompt:
    return parse_prompt(strict_json.read(path, max_bytes=MAX_LINE_BYTES), str(path))
