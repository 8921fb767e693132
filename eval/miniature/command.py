"""`staged eval miniature`: draw the miniature world's prompts once, score as often as one likes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.budget import stopped_by_budget
from eval.miniature.report import table
from eval.miniature.rewrites import RewriteSettings
from eval.miniature.run import draw_missing, score_all
from eval.miniature.settings import MiniatureSample, MiniatureSettings, samples, short_tasks
from eval.miniature.store import RESULT, SAMPLES, BatchStore
from eval.score_options import finish
from eval.search.options import add_search, search_of, verifier_help
from staged import settings as job_settings
from staged.command_line import (
    Parser,
    UsageError,
    add_batch_size,
    add_out_folder,
    count,
    natural,
    seed,
)
from staged.generate.options import add_drawing, given
from staged.jobs.rank import add_options, rank_of
from staged.loops.idea2img.policy import IdeaPolicy
from staged.shapes.tasks import ALL_TASKS, TASKS

_EXAMPLE = """examples:
  staged eval miniature --checkpoint miniature:base --mode one-shot --out out/base
  staged eval miniature --checkpoint miniature:staged --mode staged --out out/staged
  staged eval miniature --checkpoint miniature:base --mode staged --planner scripted \\
      --sketcher editing --out out/base_planned
  staged eval miniature --checkpoint miniature:base --mode one-shot --total-flow-steps 60 \\
      --verifier inspector weights=miniature:staged --out out/best

The same command goes on where it was interrupted; a larger --num-per-task adds to what is there.
Under `torchrun --nproc-per-node N -m staged eval miniature ...` processes share the work, and the
last one that is ready scores."""


@stopped_by_budget("raise it")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0, or 1 where samples are unscored and that was not allowed; 3 when the budget of a
        language model stopped it.

    Raises:
        ValueError: An option is out of range, or the folder holds something else.
    """
    options = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    store = BatchStore(options.out)
    named = _given(options)
    if options.score_only and named:
        raise UsageError(
            f"--score-only scores what was drawn, so it takes no {', '.join(named)}; leave one out"
        )
    if not options.score_only and "checkpoint" not in named:
        raise UsageError("--checkpoint is missing: name a checkpoint, or give --score-only")
    rank = rank_of(options.rank, options.world_size)
    settings = store.record().settings if options.score_only else MiniatureSettings(**named)
    wanted = samples(settings)
    if short := short_tasks(settings):
        numbers = ", ".join(f"{task} {number}" for task, number in short.items())
        print(
            f"prompts that there are, of {settings.num_per_task} asked for: {numbers}; "
            "--images-per-prompt draws each more often"
        )
    if not options.score_only:
        drawn = draw_missing(
            settings,
            options.out,
            batch_size=options.batch_size,
            threads=options.threads,
            rank=rank,
        )
    if rank.world_size > 1 and (left := _left(store, wanted)):
        print(f"{rank.label('drawn')}: {drawn} samples; {left} are left to the others")
        return 0
    result = score_all(settings, options.out)
    shown = f"{result.run}, {settings.split} prompts\n{table(result, store.seconds())}"
    wrote = (options.out / RESULT, options.out / SAMPLES)
    return finish("miniature", options, result, shown, wrote)


def _left(store: BatchStore, wanted: Sequence[MiniatureSample]) -> int:
    """How many samples nobody has drawn yet."""
    there = set(store.keys())
    return sum(sample.key not in there for sample in wanted)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Settings that the command line names."""
    named = given(options, MiniatureSettings)
    if (search := search_of(options)) is not None:
        named["search"] = search
    if options.explore is not None:
        named["explore"] = job_settings.load(IdeaPolicy, None, options.explore)
    if named.get("rewrites"):
        asked, rewritten = named["rewrites"]
        named["rewrites"] = RewriteSettings(prompts=asked, rewritten=rewritten)
    if named.get("tasks") == ("all",):
        named["tasks"] = TASKS
    return named


def _parser() -> Parser:
    parser = Parser(
        prog="staged eval miniature",
        description="Draw prompts of the miniature world and score the pictures by a detector.",
        figures=True,
        epilog=f"{verifier_help()}\n\n{_EXAMPLE}",
    )
    home = MiniatureSettings(checkpoint="")
    add = parser.add_argument
    add_out_folder(parser, words="folder for pictures and scores")
    add("--checkpoint", help="folder, Hub id, or miniature:base|staged|fresh")
    add("--score-only", action="store_true", help="score again what was drawn; nothing is loaded")
    add("--mode", choices=("one-shot", "staged"), help=f"default: {home.mode}")
    add("--split", choices=("train", "test"), help=f"of the prompts; default: {home.split}")
    add(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help=f"all (the first eight), or some of {', '.join(ALL_TASKS)}; default: the first six",
    )
    add("--num-per-task", type=count, help=f"prompts of each task; default: {home.num_per_task}")
    add("--images-per-prompt", type=count, help=f"default: {home.images_per_prompt}")
    add("--seed", type=seed, metavar="N", help="of prompts and noise; default: 0")
    add_drawing(parser, home)
    add_search(parser)
    group = parser.add_argument_group("prompts", "other words than those that are asked")
    group.add_argument(
        "--explore",
        nargs="*",
        metavar="key=value",
        help="let the miniature world's language model explore prompts, as `staged idea2img` does, "
        "with settings of its policy such as num_prompts=1",
    )
    group.add_argument(
        "--rewrites",
        nargs=2,
        type=Path,
        metavar=("PROMPTS", "REWRITTEN"),
        help="draw each prompt of the first file in the words of the second, line by line; "
        "`staged shapes prompts` writes the first",
    )
    add_batch_size(parser, "images side by side; changes none", most=64)
    add("--threads", type=natural, default=0, help="of torch; 0 leaves its own choice")
    add_options(parser)
    add("--allow-unscored", action="store_true", help="exit 0 even if samples are unscored")
    return parser
