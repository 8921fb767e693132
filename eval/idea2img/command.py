"""`staged eval idea2img`: what exploring prompts gains on the miniature world's ideas."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from eval.idea2img.lines import LINES, counts, results_of
from eval.idea2img.page import PAIRS, build
from eval.report.pairs import differences
from eval.score_options import exit_code
from eval.tables import COUNTED, counted_row, difference_table, plain
from staged import settings as job_settings
from staged.command_line import Parser, UsageError, add_out_folder, add_seed, console, count
from staged.idea2img.settings import Idea2ImgSettings
from staged.ideas.exploration import Exploration
from staged.jobs.files import write_whole
from staged.jobs.progress import Progress
from staged.loops.idea2img.policy import PRESETS

_EXAMPLE = """examples:
  staged eval idea2img --out out/idea2img
  staged eval idea2img --ideas suite --out out/idea2img_suite
  staged eval idea2img --preset best --num-per-kind 20 --out out/idea2img_best
  staged eval compare out/idea2img/refined.json out/idea2img/at_once.json

The same command goes on where it was interrupted; a larger --num-per-kind takes another folder."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0, or 1 where ideas have no picture and that was not allowed.

    Raises:
        ValueError: An option is out of range, or the folder holds something else.
    """
    options = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    settings = job_settings.load(Idea2ImgSettings, None, options.overrides)
    checkpoint = settings.model.checkpoint if settings.model else ""
    if not settings.miniature_lmm or not checkpoint:
        raise UsageError(
            "this is about the miniature world: its language model writes, a miniature draws; "
            "`staged idea2img` and `staged idea2img-study` are for others"
        )
    if options.preset is not None:
        settings = replace(settings, policy=PRESETS[options.preset])
    # Torch loads where pictures are drawn.
    from eval.idea2img.compare import IDEAS, explore

    ideas = IDEAS[options.ideas](options.num_per_kind, options.seed)
    breadth = options.ideas == "vague"
    progress = Progress("explorations", (1 + breadth) * len(ideas))
    began = time.monotonic()
    explored, at_once = explore(
        settings, ideas, options.out, at_once=breadth, advance=progress.advance
    )
    progress.close()
    there = [
        (idea.kind, one, other)
        for idea, one, other in zip(ideas, explored, at_once, strict=True)
        if one is not None
    ]
    if not there:
        raise ValueError(f"nothing was explored in {options.out}; the budget allows nothing")
    kinds, ones, others = zip(*there, strict=True)
    policy = settings.policy
    variant = {
        "ideas": f"{options.ideas}, seed {options.seed}, {options.num_per_kind} of each kind",
        "image model": checkpoint,
        "policy": f"{policy.num_prompts} x {policy.max_rounds}, {policy.selection}",
    }
    results = results_of(kinds, ones, others, variant=variant)
    for line, result in results.items():
        result.write(options.out / f"{line}.json")
    spent = _spent(ones, others)
    rows = [
        [*counted_row(LINES[line], result.overall), f"{spent[line]:.3g}"]
        for line, result in results.items()
    ]
    print(plain(["line", "score", *COUNTED, "pictures"], rows))
    gains = differences(results, PAIRS).items()
    print(difference_table((f"{LINES[one]} over {LINES[other]}", it) for (one, other), it in gains))
    notes = [
        f"{len(there)} ideas; {', '.join(f'{k} {v}' for k, v in variant.items())}.",
        f"This run took {time.monotonic() - began:.0f} seconds.",
    ]
    page = options.out / "report.html"
    write_whole(page, build(results, spent, ones, others, notes).html().encode())
    print(f"wrote {page}")
    console().figures({line: result.figures() for line, result in results.items()})
    return exit_code("idea2img", [*results.values()], allow_unscored=options.allow_unscored)


def _spent(
    explored: Sequence[Exploration], at_once: Sequence[Exploration | None]
) -> dict[str, float]:
    """Pictures that each line draws for one idea, on average."""
    found = [counts(one, other) for one, other in zip(explored, at_once, strict=True)]
    return {line: sum(one[line] for one in found) / len(found) for line in LINES}


def _parser() -> Parser:
    parser = Parser(
        prog="staged eval idea2img",
        description="Explore ideas of the miniature world by prompts, and let the detector judge: "
        "a person's own words, the first round, the refined picture, and as many pictures without "
        "exploring.",
        figures=True,
        epilog=f"settings:\n{job_settings.describe(Idea2ImgSettings)}\n\n{_EXAMPLE}",
    )
    add: Any = parser.add_argument
    add_out_folder(parser, words="folder for explorations, scores and the page")
    add("--preset", choices=list(PRESETS), help="how to explore; default: what the settings say")
    add(
        "--ideas",
        choices=("vague", "suite"),
        default="vague",
        help="vague: six kinds that leave open what a prompt must say; suite: the held-out prompts "
        "of `staged eval miniature`, which leave nothing open",
    )
    add("--num-per-kind", type=count, default=8, help="ideas of each kind")
    add_seed(parser, "of ideas and noise")
    add("--allow-unscored", action="store_true", help="exit 0 even if ideas have no picture")
    add("overrides", nargs="*", default=[], metavar="key=value", help="settings of the exploration")
    return parser
