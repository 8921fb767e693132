"""What GenEval 2 wants drawn."""

from __future__ import annotations

from pathlib import Path

from eval.generation.benchmark import Benchmark
from eval.geneval.benchmark import folder_path
from eval.geneval2.prompts import SOURCE, load_prompts
from eval.numbered import METADATA
from staged import strict_json
from staged.command_line import UsageError
from staged.jobs.files import write_whole


def benchmark(prompts: str | None) -> Benchmark:
    """The folders of GenEval; a record there is the prompt alone."""
    if prompts is None:
        raise UsageError(f"--prompts is missing: name geneval2_data.jsonl of {SOURCE}")
    file = load_prompts(Path(prompts))
    texts = {str(prompt.prompt_id): prompt.text for prompt in file.prompts}

    def prepare(folder: Path) -> None:
        for key, text in texts.items():
            path = folder / folder_path(key, 0).parent.parent / METADATA
            content = strict_json.dump_lines([{"prompt": text}])
            if not path.is_file():
                write_whole(path, content)
            elif path.read_bytes() != content:
                raise ValueError(
                    f"{path} holds another prompt than {text!r:.60}; choose an empty folder"
                )

    return Benchmark(
        name="geneval2",
        variant=file.variant,
        prompts=texts,
        path_of=folder_path,
        prepare=prepare,
        images_per_prompt=1,
        one_image=False,
        next_step=f"staged eval answer-geneval2 {{out}} --prompts {prompts} --out answers.jsonl",
    )
