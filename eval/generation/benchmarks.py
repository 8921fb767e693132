"""What each benchmark wants drawn, and where its scorer looks for the images.

A new one is a function from the user's `--prompts` to a `Benchmark`, and a row in `BENCHMARKS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

from eval.generation.samples import Sample, sample_seed
from eval.geneval import folders
from eval.geneval import prompts as geneval_prompts
from eval.geneval.summary import IMAGES_PER_PROMPT
from eval.geneval2 import prompts as geneval2
from eval.numbered import METADATA
from eval.wise import prompts as wise_prompts
from eval.wise.versions import VERSIONS
from staged import strict_json
from staged.command_line import UsageError
from staged.jobs.files import write_whole


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
    """

    name: str
    variant: str
    prompts: Mapping[str, str]
    path_of: Callable[[str, int], PurePosixPath]
    prepare: Callable[[Path], None]
    images_per_prompt: int
    one_image: bool
    next_step: str

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of names and texts, in order, however their file is laid out."""
        lines = strict_json.dumps(list(self.prompts.items()))
        return hashlib.sha256(lines.encode()).hexdigest()

    def samples(self, *, images_per_prompt: int | None = None, seed: int = 0) -> tuple[Sample, ...]:
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
            Sample(
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


def _geneval(prompts: str | None, *, variant: str) -> Benchmark:
    """`NNNNN/metadata.jsonl` and `NNNNN/samples/NNNNN.png`; NNNNN is the prompt's place."""
    file = geneval_prompts.load_prompts(prompts or variant)
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
        path_of=_folder_path,
        prepare=lambda folder: folders.write_folders(folder, file.prompts),
        images_per_prompt=IMAGES_PER_PROMPT,
        one_image=False,
        next_step="staged eval detect {out} --detector mask2former --out found.jsonl",
    )


def _wise(prompts: str | None, *, version: str) -> Benchmark:
    """`{prompt_id}.png`, all in one folder."""
    if prompts is None:
        raise UsageError(f"--prompts is missing: name the folder of WISE's {version} JSON files")
    loaded = wise_prompts.load_prompts(Path(prompts), VERSIONS[version])
    return Benchmark(
        name=f"wise-{version}",
        variant=version,
        prompts={str(prompt.prompt_id): prompt.text for prompt in loaded},
        path_of=lambda key, image: PurePosixPath(f"{key}.png"),
        prepare=lambda folder: folder.mkdir(parents=True, exist_ok=True),
        images_per_prompt=1,
        one_image=True,
        next_step=f"staged eval judge-wise {{out}} --version {version} --prompts {prompts} "
        "--out judged.jsonl",
    )


def _geneval2(prompts: str | None) -> Benchmark:
    """The folders of GenEval; a record there is the prompt alone."""
    if prompts is None:
        raise UsageError(f"--prompts is missing: name geneval2_data.jsonl of {geneval2.SOURCE}")
    file = geneval2.load_prompts(Path(prompts))
    texts = {str(prompt.prompt_id): prompt.text for prompt in file.prompts}

    def prepare(folder: Path) -> None:
        for key, text in texts.items():
            path = folder / _folder_path(key, 0).parent.parent / METADATA
            content = strict_json.dumps({"prompt": text}).encode() + b"\n"
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, content)
            elif path.read_bytes() != content:
                raise ValueError(
                    f"{path} holds another prompt than {text!r:.60}; choose an empty folder"
                )

    return Benchmark(
        name="geneval2",
        variant=file.variant,
        prompts=texts,
        path_of=_folder_path,
        prepare=prepare,
        images_per_prompt=1,
        one_image=False,
        next_step=f"staged eval answer-geneval2 {{out}} --prompts {prompts} --out answers.jsonl",
    )


def _folder_path(key: str, image: int) -> PurePosixPath:
    return PurePosixPath(folders.image_path(Path(), int(key), image).as_posix())


BENCHMARKS: Mapping[str, Callable[[str | None], Benchmark]] = {
    "geneval": partial(_geneval, variant="short"),
    "geneval-long": partial(_geneval, variant="long"),
    "geneval2": _geneval2,
    "wise-legacy": partial(_wise, version="legacy"),
    "wise-verified": partial(_wise, version="verified"),
}
"""By name: from `--prompts`, or None, to the benchmark."""
