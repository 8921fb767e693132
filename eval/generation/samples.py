"""One image to be drawn, and the seed that it is drawn with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, kw_only=True)
class BenchmarkSample:
    """One image to be drawn.

    Attributes:
        prompt_key: The benchmark's own name of the prompt.
        prompt: What is to be drawn.
        image: Number of the image among those of the prompt, from 0.
        number: Its place in the list of all images of all prompts, prompt by prompt.
        seed: Of its noise; see `sample_seed`.
        path: Where it belongs below the folder of images.
    """

    prompt_key: str
    prompt: str
    image: int
    number: int
    seed: int
    path: PurePosixPath


def sample_seed(seed: int, prompt: str, image: int) -> int:
    """Return the seed of an image, below 2**48: the same noise for every model, in any order.

    Args:
        seed: Of the run.
        prompt: Its text, so that a prompt keeps its seeds wherever it stands in a file.
        image: Number of the image among those of the prompt.
    """
    text = f"{seed}/{image}/{prompt}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest())
