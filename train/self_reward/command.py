"""`staged self-reward`: a model writes prompts, judges the pictures, and learns from that."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from staged import settings as job_settings
from staged.command_line import (
    Parser,
    UsageError,
    add_device,
    add_out_file,
    add_out_folder,
    add_overrides,
    add_seed,
    console,
    count,
    exit_codes,
    natural,
)
from staged.generate.requests import check_prompt, read_prompts
from staged.jobs.files import write_whole
from staged.jobs.progress import Progress
from staged.jobs.rank import add_options, rank_of
from train.self_reward.settings import SelfRewardSettings, VlmSettings

if TYPE_CHECKING:
    from train.self_reward.job import SelfRewardJob, StageResult

_PROG: Final = "staged self-reward"
STAGES: Final = {
    "sft": "teach a model rewrites, judgements and assessments",
    "rollout": "write rewrites of prompts, and draw them",
    "judge": "let the model score the pictures, and its own answers",
    "pairs": "make preferences of the scores, for TRL and for ms-swift",
    "dpo": "learn the preferences",
}
_RUN: Final = """examples:
  staged self-reward miniature --out out/school
  staged self-reward run configs/self_reward/miniature.yaml
  staged self-reward optimise "something red next to a star" --run out/self_reward"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 where an answer is no prompt; 3 where the budget is spent.

    Raises:
        ValueError: Settings, files or what went before are not as they must be.
        OSError: A file cannot be read or written.
    """
    options = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _stage(options: argparse.Namespace) -> int:
    job = _job(options)
    iteration = () if options.stage == "sft" else (options.iteration,)
    return _ended([_told(getattr(job, options.stage)(*iteration))])


def _all(options: argparse.Namespace) -> int:
    job = _job(options)
    results = [_told(job.sft())] if job.settings.sft_data else []
    for iteration in range(1, job.num_iterations + 1):
        for stage in ("rollout", "judge", "pairs", "dpo"):
            _meet(job)
            results.append(_told(getattr(job, stage)(iteration)))
            _meet(job)
            if results[-1].stopped:
                return _ended(results)
    return _ended(results)


def _meet(job: SelfRewardJob) -> None:
    """Wait for the other processes: each stage needs what all of them leave."""
    if job.shared:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def _job(options: argparse.Namespace) -> SelfRewardJob:
    settings = job_settings.load(SelfRewardSettings, options.config, options.overrides)
    read_prompts(settings.prompts)
    for path in settings.sft_data:
        if not path.is_file():
            raise ValueError(f"sft_data: there is no file {path}")
    from train.self_reward.job import SelfRewardJob  # it brings torch

    rank = rank_of(getattr(options, "rank", None), getattr(options, "world_size", None))
    shown: dict[str, Progress] = {}

    def tell(stage: str, done: int, number: int) -> None:
        if stage not in shown:
            shown[stage] = Progress(rank.label(stage), number, done=done - 1)
        shown[stage].advance()
        if done == number:
            shown[stage].close()

    return SelfRewardJob(settings, rank=rank, tell=tell)


def _told(result: StageResult) -> StageResult:
    said = ", ".join(f"{number} {name}" for name, number in result.counts.items())
    left = f"; {result.unfinished} are left" if result.unfinished else ""
    print(f"{result.stage:<10} {said or 'nothing'}{left}", flush=True)
    if result.stopped:
        print(f"stopped: {result.stopped}; raise it and run the same command", file=sys.stderr)
    return result


def _ended(results: Sequence[StageResult]) -> int:
    console().figures({one.stage: {**one.counts, "unfinished": one.unfinished} for one in results})
    return exit_codes.STOPPED if any(one.stopped for one in results) else exit_codes.OK


def _optimise(options: argparse.Namespace) -> int:
    if (options.prompt is None) == (options.prompts is None):
        raise UsageError("give one prompt, or --prompts FILE with --out FILE for many")
    if (options.prompts is None) != (options.out is None):
        raise UsageError("--prompts FILE and --out FILE belong together: give both or none")
    if (options.run_folder is None) == (options.model is None):
        raise UsageError("give --run FOLDER, or --model FOLDER of one model")
    prompts = (
        read_prompts(options.prompts)
        if options.prompts
        else [check_prompt(options.prompt.strip(), "the prompt")]
    )
    vlm, source, beams = _asked_model(options)
    from train.self_reward.asking import WORDINGS, read_rewrite
    from train.self_reward.vlm import Asked, LocalVlm

    answerer, wording = LocalVlm(source, vlm), WORDINGS[vlm.wording]
    progress = Progress("prompts", len(prompts)) if options.prompts else None
    written: list[str | None] = []
    for prompt in prompts:
        asked = Asked(question=wording.rewrite(prompt))
        text = answerer.likeliest(asked, num_beams=beams, max_new_tokens=options.max_new_tokens)
        written.append(None if text is None else read_rewrite(text))
        if progress:
            progress.advance()
    if progress:
        progress.close()
    failed = [prompt for prompt, text in zip(prompts, written, strict=True) if text is None]
    console().figures({"prompts": dict(zip(prompts, written, strict=True))})
    for prompt in failed[:5]:
        print(f"no prompt came for {prompt!r:.80}: empty, or cut off", file=sys.stderr)
    if failed:
        return exit_codes.FAILED
    lines = [text for text in written if text is not None]
    if options.out is None:
        print(lines[0])
        return exit_codes.OK
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.out, "".join(f"{line}\n" for line in lines).encode())
    print(f"{options.out}: {len(lines)} prompts, in the order of {options.prompts}")
    return exit_codes.OK


def _asked_model(options: argparse.Namespace) -> tuple[VlmSettings, str, int]:
    """How the model is asked, which it is, and how many beams it has."""
    plain: Any = SelfRewardSettings.__dataclass_fields__["num_beams"].default
    if options.model is not None:
        vlm = VlmSettings(model=options.model, wording=options.wording, device=options.device)
        return vlm, options.model, options.num_beams or plain
    from dataclasses import replace

    from train.self_reward.job import SETTINGS, newest_model

    path = options.run_folder / SETTINGS
    if not path.is_file():
        raise ValueError(f"{options.run_folder} holds no run: there is no {path}")
    settings = job_settings.load(SelfRewardSettings, path)
    source = newest_model(options.run_folder, settings, options.iteration)
    vlm = replace(settings.vlm, device=options.device)
    return vlm, source, options.num_beams or settings.num_beams


def _miniature(options: argparse.Namespace) -> int:
    from train.self_reward.miniature import write_world

    counts = write_world(
        options.out,
        num_ideas=options.num_ideas,
        num_lessons=options.num_lessons,
        num_prompts=options.num_prompts,
        num_held_out=options.num_held_out,
        num_suite=options.num_suite,
        seed=options.seed,
    )
    print(f"{options.out}: {', '.join(f'{number} {name}' for name, number in counts.items())}")
    console().figures(counts)
    return exit_codes.OK


def _import(options: argparse.Namespace) -> int:
    from itertools import islice

    from train.self_reward.asking import WORDINGS
    from train.self_reward.examples import write_examples
    from train.self_reward.importers.prompts import beautiful_prompt, diffusiondb_prompts

    if options.format == "diffusiondb":
        prompts = list(islice(diffusiondb_prompts(options.file), options.limit))
        number = len(prompts)
        content = "".join(f"{prompt}\n" for prompt in prompts).encode()
    else:
        wording = WORDINGS[options.wording]
        examples = list(islice(beautiful_prompt(options.file, wording), options.limit))
        number = len(examples)
    if not number:
        raise ValueError(f"{options.file} holds nothing to import")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.format == "diffusiondb":
        write_whole(options.out, content)
    else:
        write_examples(options.out, examples)
    what = "prompts" if options.format == "diffusiondb" else "examples"
    print(f"{options.out}: {number} {what}")
    console().figures({what: number})
    return exit_codes.OK


def _parser() -> Parser:
    table = job_settings.describe(SelfRewardSettings)
    parser = Parser(
        prog=_PROG,
        description="Train a vision-language model to rewrite prompts for an image model, by its "
        "own judgement of the pictures (arXiv 2505.16763).",
        epilog=_RUN,
    )
    parts = parser.add_subparsers(metavar="STAGE", required=True, help="what to do")
    for name, words in {**STAGES, "run": "all stages, one iteration after another"}.items():
        again = "\n\nThe same command goes on where it was interrupted."
        example = f"example: {_PROG} {name} configs/self_reward/miniature.yaml"
        if name not in ("run", "sft"):
            example += " --iteration 1"
        part = parts.add_parser(
            name, help=words, epilog=f"{example}{again}\n\nsettings:\n{table}", figures=True
        )
        part.set_defaults(run=_all if name == "run" else _stage, stage=name)
        part.add_argument("config", type=Path, help="YAML file; see configs/self_reward/")
        add_overrides(part)
        if name not in ("run", "sft"):
            part.add_argument(
                "--iteration", type=count, default=1, metavar="N", help="which one, from 1"
            )
        add_options(part)
    _add_optimise(parts)
    _add_data(parts)
    return parser


def _add_optimise(parts: Any) -> None:
    part = parts.add_parser(
        "optimise",
        help="write a better prompt",
        epilog=f'example: {_PROG} optimise "something red next to a star" --run out/self_reward',
        figures=True,
    )
    part.set_defaults(run=_optimise)
    part.add_argument("prompt", nargs="?", metavar="PROMPT", help="what is wanted")
    part.add_argument("--prompts", type=Path, metavar="FILE", help="many prompts, one a line")
    add_out_file(part, words="file for their rewrites, one a line", required=False)
    part.add_argument(
        "--run", dest="run_folder", type=Path, metavar="FOLDER", help="what `run` left; its newest"
    )
    part.add_argument("--iteration", type=int, metavar="N", help="another model of it; 0 is sft's")
    part.add_argument("--model", metavar="MODEL", help="folder or Hub id of a model instead")
    part.add_argument(
        "--wording", choices=("full", "terse"), default="full", help="how --model was taught"
    )
    part.add_argument("--num-beams", type=count, metavar="N", help="default: what the run says, 4")
    part.add_argument("--max-new-tokens", type=count, default=256, help="of a prompt, at most")
    add_device(part)


def _add_data(parts: Any) -> None:
    part = parts.add_parser(
        "miniature",
        help="write the miniature world's model, lessons and prompts",
        epilog=f"example: {_PROG} miniature out/school",
        figures=True,
    )
    part.set_defaults(run=_miniature)
    add_out_folder(part, words="folder to write")
    for name, default, words in (
        ("ideas", 60, "of a kind, to teach with"),
        ("lessons", 4, "of each of these ideas, with pictures of its own"),
        ("prompts", 20, "of a kind, to learn from"),
        ("held-out", 8, "of a kind, to test with"),
        ("suite", 0, "prompts of each task of `staged eval miniature`, to teach with"),
    ):
        part.add_argument(f"--num-{name}", type=natural, default=default, metavar="N", help=words)
    add_seed(part, "of everything")
    part = parts.add_parser(
        "import",
        help="published data sets to prompts or examples",
        epilog=f"example: {_PROG} import diffusiondb metadata.parquet --out prompts.txt",
        figures=True,
    )
    part.set_defaults(run=_import)
    part.add_argument("format", choices=("diffusiondb", "beautiful-prompt"), help="what it is")
    part.add_argument("file", type=Path, help="metadata.parquet, or BeautifulPrompt's JSON")
    add_out_file(part, words="prompts, one a line; or examples for sft_data")
    part.add_argument("--limit", type=count, metavar="N", help="first so many")
    part.add_argument(
        "--wording", choices=("full", "terse"), default="full", help="of the questions"
    )
