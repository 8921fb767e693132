"""`staged self-reward`: a model writes prompts, judges the pictures, and learns from that."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from staged import settings as job_settings
from staged.command_line import (
    Parser,
    add_out_file,
    add_out_folder,
    add_overrides,
    add_seed,
    console,
    count,
    exit_codes,
    natural,
)
from staged.generate.requests import read_prompts
from staged.jobs.files import write_whole
from staged.jobs.progress import Progress
from staged.jobs.rank import add_options, rank_of
from train.self_reward.settings import SelfRewardSettings
from train.self_reward.using import PROG, add_using

if TYPE_CHECKING:
    from train.self_reward.job import SelfRewardJob, StageResult

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


def _miniature(options: argparse.Namespace) -> int:
    from train.self_reward.miniature import write_world

    counts = write_world(
        options.out,
        num_ideas=options.num_ideas,
        num_lessons=options.num_lessons,
        num_pictured=options.num_pictured,
        num_prompts=options.num_prompts,
        num_held_out=options.num_held_out,
        num_suite=options.num_suite,
        seed=options.seed,
    )
    print(f"{options.out}: {', '.join(f'{number} {name}' for name, number in counts.items())}")
    console().figures(counts)
    return exit_codes.OK


def _import(options: argparse.Namespace) -> int:
    dropped: Counter[str] = Counter()
    number, what = _IMPORTERS[options.format](options, dropped)
    print(f"{options.out}: {number} {what}")
    for reason, left_out in sorted(dropped.items()):
        print(f"left out: {left_out} {reason}")
    console().figures({what: number, **{f"dropped: {why}": n for why, n in dropped.items()}})
    return exit_codes.OK


def _import_prompts(options: argparse.Namespace, dropped: Counter[str]) -> tuple[int, str]:
    from train.self_reward.importers.prompts import diffusiondb_prompts

    prompts = _some(options, diffusiondb_prompts(options.file))
    write_whole(options.out, "".join(f"{prompt}\n" for prompt in prompts).encode())
    return len(prompts), "prompts"


def _import_rewrites(options: argparse.Namespace, dropped: Counter[str]) -> tuple[int, str]:
    from train.self_reward.asking import WORDINGS
    from train.self_reward.examples import write_examples
    from train.self_reward.importers.prompts import beautiful_prompt

    found = _some(options, beautiful_prompt(options.file, WORDINGS[options.wording]))
    return write_examples(options.out, found), "examples"


def _import_pairs(options: argparse.Namespace, dropped: Counter[str]) -> tuple[int, str]:
    from train.self_reward.importers.pick_a_pic import pick_a_pic
    from train.self_reward.preferences import write_pairs

    pictures = options.out.parent / "pictures"
    found = _some(options, pick_a_pic(options.file, pictures, dropped))
    return write_pairs(options.out, found), "pairs"


_T = TypeVar("_T")


def _some(options: argparse.Namespace, found: Iterator[_T]) -> list[_T]:
    """The first so many, and at least one."""
    some = list(islice(found, options.limit))
    if not some:
        raise ValueError(f"{options.file} holds nothing to import")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    return some


_IMPORTERS: Final = {
    "diffusiondb": _import_prompts,
    "beautiful-prompt": _import_rewrites,
    "pick-a-pic": _import_pairs,
}


def _parser() -> Parser:
    table = job_settings.describe(SelfRewardSettings)
    parser = Parser(
        prog=PROG,
        description="Train a vision-language model to rewrite prompts for an image model, by its "
        "own judgement of the pictures (arXiv 2505.16763).",
        epilog=_RUN,
    )
    parts = parser.add_subparsers(metavar="STAGE", required=True, help="what to do")
    for name, words in {**STAGES, "run": "all stages, one iteration after another"}.items():
        again = "\n\nThe same command goes on where it was interrupted."
        example = f"example: {PROG} {name} configs/self_reward/miniature.yaml"
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
    add_using(parts)
    _add_data(parts)
    return parser


def _add_data(parts: Any) -> None:
    part = parts.add_parser(
        "miniature",
        help="write the miniature world's model, lessons, prompts and pairs to judge",
        epilog=f"example: {PROG} miniature --out out/school",
        figures=True,
    )
    part.set_defaults(run=_miniature)
    add_out_folder(part, words="folder to write")
    for name, default, words in (
        ("ideas", 80, "of a kind, to teach with"),
        ("lessons", 12, "rewrites of each of these ideas"),
        ("pictured", 16, "judgements of each of these ideas, with pictures of their own"),
        ("prompts", 20, "of a kind, to learn from"),
        ("held-out", 8, "of a kind, to test with"),
        ("suite", 20, "prompts of each task of `staged eval miniature`, to teach with"),
    ):
        part.add_argument(f"--num-{name}", type=natural, default=default, metavar="N", help=words)
    add_seed(part, "of everything")
    part = parts.add_parser(
        "import",
        help="published data sets to prompts or examples",
        epilog=f"example: {PROG} import diffusiondb metadata.parquet --out prompts.txt",
        figures=True,
    )
    part.set_defaults(run=_import)
    part.add_argument("format", choices=list(_IMPORTERS), help="what it is")
    part.add_argument(
        "file",
        type=Path,
        help="DiffusionDB's metadata.parquet, BeautifulPrompt's JSON, or parquet of Pick-a-Pic v1",
    )
    add_out_file(
        part,
        words="prompts, one a line; examples for sft_data; or pairs of pictures, which lie beside",
    )
    part.add_argument("--limit", type=count, metavar="N", help="first so many")
    part.add_argument(
        "--wording", choices=("full", "terse"), default="full", help="of the questions"
    )
