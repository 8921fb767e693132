"""What WISE wants drawn."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from eval.generation.benchmark import Benchmark
from eval.wise.prompts import load_prompts
from eval.wise.versions import VERSIONS
from staged.command_line import UsageError


def benchmark(prompts: str | None, *, version: str) -> Benchmark:
    """`{prompt_id}.png`, all in one folder."""
    if prompts is None:
        raise UsageError(f"--prompts is missing: name the folder of WISE's {version} JSON files")
    loaded = load_prompts(Path(prompts), VERSIONS[version])
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
