"""Images with the prompts they were made from, in the layouts that evaluations leave.

- a folder `NNNNN/metadata.jsonl`, `NNNNN/samples/*.png`, as GenEval has it: the record's `prompt`;
- a folder of `{prompt_id}.png`, as WISE has it: the prompts are given apart (`eval.numbered` says
  what else such folders may be);
- a file of JSON lines, `{"image": PATH, "prompt": TEXT}` each, other keys aside;
- a JSON file `{TEXT: PATH}`, as GenEval 2 has it.

Paths in files are relative to the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.numbered import METADATA, SAMPLES, no_images, numbered_folders, numbered_images
from staged import strict_json

MAX_LINE_BYTES = 1024 * 1024
MAX_FILE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image, which may be missing.

    Attributes:
        name: What tells it from the others: its path below the folder, or as the file has it.
        path: Where it should be.
        prompt: What it was made from.
    """

    name: str
    path: Path
    prompt: str


def read_pictures(source: Path, texts: Mapping[int, str] | None = None) -> list[Picture]:
    """Read what there is, in order of numbers or lines.

    Args:
        source: A folder or a file in one of the layouts.
        texts: Prompts by number, for a folder of `{prompt_id}.png`: one picture for each.

    Returns:
        Pictures. One that should be there and is not has a path without a file: a prompt of
        `texts`, a line of a file, or a prompt's folder without any image.

    Raises:
        ValueError: no such layout, no image at all, or one that occurs twice.
        OSError: something cannot be read.
    """
    if source.is_file():
        listed = _mapping(source) if source.suffix == ".json" else _lines(source)
    elif not source.is_dir():
        raise ValueError(f"{source}: neither a folder nor a file")
    elif texts is not None:
        listed = _numbered(source, texts)
    else:
        listed = _folders(source)
    pictures = list(listed)
    if not any(picture.path.is_file() for picture in pictures):
        raise ValueError(
            f"{source}: no images"
            + (f", {pictures[0].path} for one is missing" if pictures else "")
            + f"; expected folders 00000, 00001, … with {METADATA} and {SAMPLES}, or a file of "
            "lines with `image` and `prompt`"
        )
    seen: set[tuple[str, str]] = set()
    for picture in pictures:
        if (picture.name, picture.prompt) in seen:
            raise ValueError(f"{source}: {picture.name!r:.80} occurs twice with the same prompt")
        seen.add((picture.name, picture.prompt))
    return pictures


def _folders(source: Path) -> Iterator[Picture]:
    for each in numbered_folders(source):
        record = strict_json.read_object(each.metadata, max_bytes=MAX_LINE_BYTES)
        prompt = _text(record, "prompt", str(each.metadata))
        for image in each.images.values() or [each.path / SAMPLES / "00000.png"]:
            yield Picture(name=image.relative_to(source).as_posix(), path=image, prompt=prompt)


def _numbered(source: Path, texts: Mapping[int, str]) -> Iterator[Picture]:
    found = numbered_images(source)
    if not found:
        raise no_images(source)
    for number, text in sorted(texts.items()):
        path = found.get(number, source / f"{number}.png")
        yield Picture(name=path.name, path=path, prompt=text)


def _lines(source: Path) -> Iterator[Picture]:
    for record, place in strict_json.read_records(
        source, {}, max_bytes=MAX_LINE_BYTES, others=True
    ):
        yield _listed(source, _text(record, "image", place), _text(record, "prompt", place))


def _mapping(source: Path) -> Iterator[Picture]:
    record = strict_json.read_object(source, max_bytes=MAX_FILE_BYTES)
    for prompt in record:
        yield _listed(source, _text(record, prompt, str(source)), prompt)


def _listed(source: Path, image: str, prompt: str) -> Picture:
    return Picture(name=image, path=source.parent / image, prompt=prompt)


def _text(record: Mapping[str, Any], key: str, place: str) -> str:
    if key not in record:
        raise ValueError(f"{place}: missing key {key!r}")
    return strict_json.unicode_text(record[key], f"{place}.{key:.60}")
