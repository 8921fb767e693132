"""Pairs of pictures of which one is preferred: what a judge can be measured by.

    {"prompt": …, "images": ["pictures/1.jpg", "pictures/2.jpg"], "preferred": 0}

`preferred` is the place of the better one, and paths are relative to the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staged import strict_json
from staged.generate.requests import check_prompt
from staged.jobs.files import write_json_lines
from staged.lines import MAX_LINE_BYTES
from staged.picture_pairs import PAIR_FIELDS, read_pair


@dataclass(frozen=True, kw_only=True)
class PicturePair:
    """Two pictures for one prompt.

    Attributes:
        prompt: What both were drawn for.
        images: Their files.
        preferred: Place of the better one, 0 or 1; ties are no pairs.
    """

    prompt: str
    images: tuple[Path, Path]
    preferred: int


def write_pairs(path: Path, pairs: Iterable[PicturePair]) -> int:
    """Write pairs, whole or not at all; returns how many."""
    records = [plain(pair, path.parent) for pair in pairs]
    write_json_lines(path, records)
    return len(records)


def plain(pair: PicturePair, folder: Path) -> dict[str, Any]:
    """Return a pair as plain data, its paths relative to a folder."""
    root = folder.resolve()
    names = [os.path.relpath(image.resolve(), root) for image in pair.images]
    return {"prompt": pair.prompt, "images": names, "preferred": pair.preferred}


def read_pairs(path: Path) -> list[PicturePair]:
    """Read what `write_pairs` wrote.

    Raises:
        ValueError: A line is anything else, or a picture is missing; names file and line. There is
            no pair.
        OSError: The file cannot be read.
    """
    found = list(_read(path))
    if not found:
        raise ValueError(f"{path} holds no pairs of pictures")
    return found


def _read(path: Path) -> Iterator[PicturePair]:
    for record, place in strict_json.read_records(path, PAIR_FIELDS, max_bytes=MAX_LINE_BYTES):
        names, preferred = read_pair(record, place)
        first, second = (path.parent / name for name in names)
        for image in (first, second):
            if not image.is_file():
                raise ValueError(f"{place}: there is no picture {image}")
        prompt = check_prompt(record["prompt"].strip(), place)
        yield PicturePair(prompt=prompt, images=(first, second), preferred=preferred)
