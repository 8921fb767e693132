"""How each kind of generator is set; read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ExistingSettings:
    """A folder of images that were made elsewhere, and how they are named there."""

    images: Path
    """The folder."""
    pattern: str
    """Path of an image below it: `{prompt}` is the benchmark's own name of the prompt (GenEval: its
    place in the file, from 0; WISE: its prompt_id), `{image}` the image's number, `{number}` a
    running number over all images of all prompts, each prompt's together; they may be padded, as
    `{number:05}`. Without an ending, PNG, WebP and JPEG will do."""
