"""What GenEval wants drawn."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from eval.generation.benchmark import Benchmark
from eval.geneval import folders
from eval.geneval.prompts import load_prompts
from eval.geneval.summary import IMAGES_PER_PROMPT


def benchmark(prompts: str | None, *, variant: str) -> Benchmark:
    """`NNNNN/metadata.jsonl` and `NNNNN/samples/NNNNN.png`; NNNNN is the prompt's place."""
    file = load_prompts(prompts or variant)
    name = {"short": "geneval", "long": "geneval-long"}
    if file.variant in name and file.variant != variant:
        raise ValueError(
            f"{prompts} has GenEval's {file.variant} prompts, which are another metric; "
            f"write --benchmark {name[file.variant]}"
        )

    return Benchmark(
        name=name[variant],
        variant=file.variant,
        prompts={str(place): prompt.text for place, prompt in enumerate(file.prompts)},
        path_of=folder_path,
        prepare=lambda folder: folders.write_folders(folder, file.prompts),
        images_per_prompt=IMAGES_PER_PROMPT,
        one_image=False,
        next_step="staged eval detect {out} --detector mask2former --out found.jsonl",
        geneval={prompt.text: prompt for prompt in file.prompts},
    )


def folder_path(key: str, image: int) -> PurePosixPath:
    """Where an image of a prompt, named by its number, belongs in the folders of GenEval."""
    return PurePosixPath(folders.image_path(Path(), int(key), image).as_posix())
