"""What a benchmark wants drawn, and where its scorer looks for the images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from eval.generation.samples import BenchmarkSample, sample_seed
from eval.geneval.prompt import GenEvalPrompt
from staged import strict_json


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Prompts, and a folder's layout.

    Attributes:
        name: As on the command line.
        variant: Of the prompts; what a result will say.
        prompts: Text by the benchmark's own name of the prompt, in the benchmark's order.
        path_of: Where an image belongs below the folder, by name of the prompt and image number.
        prepare: Writes what the scorer needs beside the images.
        images_per_prompt: How many its rules want.
        one_image: Whether the layout has room for one a prompt alone.
        next_step: The command that looks at the images.
        geneval: What its prompts ask for in objects, by text, where they are GenEval's.
    """

    name: str
    variant: str
    prompts: Mapping[str, str]
    path_of: Callable[[str, int], PurePosixPath]
    prepare: Callable[[Path], None]
    images_per_prompt: int
    one_image: bool
    next_step: str
    geneval: Mapping[str, GenEvalPrompt] | None = None

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of names and texts, in order, however their file is laid out."""
        lines = strict_json.dumps(list(self.prompts.items()))
        return hashlib.sha256(lines.encode()).hexdigest()

    def samples(
        self, *, images_per_prompt: int | None = None, seed: int = 0
    ) -> tuple[BenchmarkSample, ...]:
        """List all images: the first of every prompt, then the second of every prompt.

        So more images of each prompt leave the list of those that were there before as it was.

        Args:
            images_per_prompt: None for what the benchmark's rules want.
            seed: Of the run.

        Raises:
            ValueError: fewer than one, or more than the layout has room for.
        """
        wanted = self.images_per_prompt if images_per_prompt is None else images_per_prompt
        if wanted < 1 or (self.one_image and wanted > 1):
            most = "1" if self.one_image else "at least 1"
            raise ValueError(f"{wanted} images a prompt; {self.name} takes {most}")
        return tuple(
            BenchmarkSample(
                prompt_key=key,
                prompt=text,
                image=image,
                number=place * wanted + image,
                seed=sample_seed(seed, text, image),
                path=self.path_of(key, image),
            )
            for image in range(wanted)
            for place, (key, text) in enumerate(self.prompts.items())
        )
