"""What is asked for: prompts, input images, and the seed of every picture."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from staged import images, protocol
from staged.lines import read_lines
from staged.trajectory import ImageRef, Trajectory

REQUESTS: Final = "requests"
"""Name under which `decides` tells prompts, images and seeds together."""
MAX_REQUESTS: Final = 100_000


@dataclass(frozen=True, kw_only=True)
class DrawRequest:
    """One picture, or one answer.

    Attributes:
        start: Prompt and input images.
        seed: Of everything that is drawn at random for it.
    """

    start: Trajectory
    seed: int


def make_requests(starts: Sequence[Trajectory], *, num_images: int, seed: int) -> list[DrawRequest]:
    """Ask for some pictures of each prompt.

    The first picture of a prompt has the seed that is given, and each further one counts up,
    also where the prompt stands on several lines: to repeat a line is to ask for more pictures.
    So all pictures of a prompt differ, and none changes when other lines come or go.

    Args:
        starts: Of each line, in order; some may be equal.
        num_images: Of each line.
        seed: Of the first picture of each prompt.

    Raises:
        ValueError: These are too many.
    """
    if len(starts) * num_images > MAX_REQUESTS:
        raise ValueError(
            f"{len(starts)} prompts, {num_images} images each: give at most {MAX_REQUESTS} in all"
        )
    asked: Counter[str] = Counter()
    requests = []
    for start in starts:
        for _ in range(num_images):
            requests.append(DrawRequest(start=start, seed=seed + asked[start.prompt]))
            asked[start.prompt] += 1
    return requests


def read_prompts(path: Path) -> list[str]:
    """Read a file of one prompt a line; empty lines are passed over.

    Raises:
        ValueError: It is too large, no text, or has no prompts; or a line is none.
    """
    lines = islice(read_lines(path), MAX_REQUESTS + 1)
    found = [check_prompt(line.text().strip(), line.place) for line in lines]
    if not 1 <= len(found) <= MAX_REQUESTS:
        number = "no" if not found else "more"
        raise ValueError(f"{path} holds {number} prompts; give 1 to {MAX_REQUESTS}, one a line")
    return found


def check_prompt(text: str, place: str) -> str:
    """Make sure that a text can stand in a sequence.

    Raises:
        ValueError: It is empty, too long, or holds a tag or token of the protocol.
    """
    try:
        protocol.check_text(text)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return text


def read_image(path: Path) -> ImageRef:
    """Read an input image; it is decoded once, so that a broken one is found here.

    Raises:
        ValueError: It is none; names the file.
    """
    data = images.read_file(path)
    try:
        images.decode(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return ImageRef(png=data)


def decides(requests: Sequence[DrawRequest]) -> dict[str, Any]:
    """Plain data that differ where something else is asked for, readable where it is one thing."""
    starts = [request.start for request in requests]
    images = [hashlib.sha256(ref.png or b"").hexdigest()[:16] for ref in starts[0].inputs]
    prompts = list(dict.fromkeys(start.prompt for start in starts))
    digest = hashlib.sha256()
    for request in requests:
        digest.update(f"{request.seed} {len(request.start.prompt)} {request.start.prompt}".encode())
    return {
        "prompt": prompts[0] if len(prompts) == 1 else f"{len(prompts)} different ones",
        "images": images,
        REQUESTS: f"{len(requests)}, sha256 {digest.hexdigest()[:16]}",
    }
