"""`staged idea2img`: explore an image model by prompts until it draws what was meant."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from staged import settings as job_settings
from staged.command_line import (
    Parser,
    UsageError,
    add_out_folder,
    console,
    exit_codes,
    seed,
)
from staged.generate.requests import check_prompt, read_prompts
from staged.idea2img.settings import Idea2ImgSettings
from staged.idea2img.telling import describe, ended, figures
from staged.ideas.exploration import Exploration
from staged.ideas.folder import load_exploration
from staged.ideas.idea import MARK, Idea, read_idea, read_ideas
from staged.jobs.files import write_whole
from staged.jobs.progress import Progress
from staged.jobs.rank import add_options, rank_of
from staged.loops.idea2img.events import Explored, IdeaEvent
from staged.loops.idea2img.policy import PRESETS, IdeaPolicy
from staged.report.explored import explored_report
from staged.settings import to_dict
from staged.shapes.sight.wishes import vision_of

REPORT: Final = "report.html"
MAX_SHOWN: Final = 60
"""Explorations on the page; the rest stand in their folders."""
_SETTING: Final = re.compile(r"[a-z_]+(?:\.[a-z_]+)*=")
_DESCRIPTION: Final = """Turn an idea into a picture: a language model that sees writes prompts for
an image model it does not know, looks at the drafts, chooses one, finds what to improve, and writes
better prompts, with all rounds in memory (Idea2Img, arXiv 2310.08541). Everything is kept:
idea2img.json, the drafts, trajectory.json, final.png and report.html."""
_EXAMPLE: Final = """examples:
  staged idea2img "something red next to a star" --out out/idea
  staged idea2img "a logo of this dog:" dog.png "flat, two colours" --preset best --out out/logo \\
      pipeline.model=stabilityai/stable-diffusion-xl-base-1.0 lmm.model=gpt-4o
  staged idea2img --ideas ideas.txt --manual prompts.txt --out out/ideas \\
      endpoint.model=gpt-image-1 endpoint.base_url=https://api.openai.com/v1 \\
      endpoint.api_key_env=OPENAI_API_KEY lmm.model=gpt-4o

An idea is text and images in the order in which they are meant; in a file of ideas, one a line,
<IMG> stands before and after the path of each image. The same command goes on where it was
interrupted: no answer is paid for twice, and no picture drawn twice."""


def main(argv: list[str]) -> int:
    """Run the command.

    Returns:
        0, 1 if an exploration did not come to its end, 3 where the budget is spent, or 130 after
        Ctrl-C.
    """
    options = _parser().parse_args(argv)
    words, overrides = _sorted([*options.words, *options.overrides])
    settings = _settings(options, overrides)
    ideas, manual = _read(options, words)
    _check_world(settings, ideas)
    rank = rank_of(options.rank, options.world_size)
    # After the cheap checks: a wrong option is told at once, not after torch is loaded.
    from staged.idea2img.job import numbers_in, run_ideas, tasks_of

    tasks = tasks_of(ideas, manual, settings)
    mine = rank.share(range(len(tasks)))
    there = len(numbers_in(options.out)) if options.out.is_dir() else 0
    single = len(tasks) == 1
    progress = Progress(rank.label("ideas"), len(mine), done=min(there, len(mine)))

    def tell(event: IdeaEvent) -> None:
        if single and not isinstance(event, Explored):
            print(describe(event), flush=True)

    def done(number: int, exploration: Exploration) -> None:
        prefix = "end      " if single else f"[{number}] {exploration.idea.text!r:.60} "
        print(prefix + ended(exploration), flush=True)
        if not single:
            progress.advance()

    started = time.monotonic()
    try:
        result = run_ideas(
            settings,
            tasks,
            options.out,
            rank=rank,
            retry_failed=options.retry_failed,
            tell=tell,
            done=done,
        )
    except KeyboardInterrupt:
        print(
            f"\ninterrupted; what was answered and drawn is kept in {options.out}, and the same "
            "command goes on from there",
            file=sys.stderr,
        )
        return exit_codes.INTERRUPTED
    finally:
        progress.close()
    took = f"{result.new} explored now, in {time.monotonic() - started:.1f} seconds"
    spent = f"; {result.usd:.2f} USD" if result.usd else ""
    page = _write_page(options.out, settings, numbers_in(options.out), f"{took}{spent}")
    for number, reason in list(result.failed.items())[:5]:
        print(f"failed   {tasks[number].idea.text!r:.60}: {reason}")
    if result.stopped:
        print(f"stopped: {result.stopped}; raise it and run the same command", file=sys.stderr)
    whole = f"{len(result.complete)} of {len(tasks)} came to their end; {took}{spent}"
    print(f"saved    {page}; {whole}" if page else whole)
    shown = numbers_in(options.out)[:MAX_SHOWN]
    console().figures(
        {
            "complete": len(result.complete),
            "failed": len(result.failed),
            "unfinished": result.unfinished,
            "usd": result.usd,
            "explorations": [figures(_load(options.out, number)) for number in shown],
            "out": str(options.out),
        }
    )
    ok = len(result.complete) + (result.unfinished if rank.world_size > 1 else 0) >= len(tasks)
    if result.stopped:
        return exit_codes.STOPPED
    return exit_codes.OK if ok else exit_codes.FAILED


def _write_page(
    out: Path, settings: Idea2ImgSettings, numbers: Sequence[int], took: str
) -> Path | None:
    shown = [_load(out, number) for number in numbers[:MAX_SHOWN]]
    if not shown:
        return None
    policy, names = settings.policy, shown[0].provenance.get("models", {})
    checkpoint = settings.model.checkpoint if settings.model else ""
    facts = [
        f"Image model: {names.get('painter', 'unknown')}. Language model: "
        f"{names.get('writer', 'unknown')}, in every other role.",
        f"Up to {policy.max_rounds} rounds of {policy.num_prompts} prompts; pictures are judged by "
        f"{policy.selection}"
        + (", with a checklist" if policy.checklist else "")
        + (", and may be edited" if policy.edit else "")
        + f". {took}.",
    ]
    more = f"The first {MAX_SHOWN} of {len(numbers)}." if len(numbers) > MAX_SHOWN else ""
    expect = ""
    if checkpoint.startswith("miniature:"):
        from staged.shapes.expectation import expectation  # it brings torch

        expect = expectation(checkpoint)
    page = out / REPORT
    report = explored_report(shown, intro=more, expect=expect, notes=facts)
    # Whole, since processes that share the work may write it at the same time.
    write_whole(page, report.html().encode())
    return page


def _load(out: Path, number: int) -> Exploration:
    return load_exploration(out / f"{number:05d}")


def _sorted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell the parts of an idea from settings, which may stand anywhere."""
    known = {field.name for field in fields(Idea2ImgSettings)}
    settings = [
        word
        for word in words
        if (found := _SETTING.match(word)) and found[0].rstrip("=").partition(".")[0] in known
    ]
    return [word for word in words if word not in settings], settings


def _settings(options: argparse.Namespace, overrides: Sequence[str]) -> Idea2ImgSettings:
    if options.config is not None and options.preset is not None:
        raise UsageError("--preset and a --config both say how; give one, and change its settings")
    preset = to_dict(PRESETS[options.preset or "paper"])
    plain = to_dict(IdeaPolicy())
    given = [
        f"policy.{name}={_yaml(value)}" for name, value in preset.items() if value != plain[name]
    ]
    if options.seed is not None:
        overrides = [*overrides, f"seed={options.seed}"]
    if options.config is not None:
        given = []
    return job_settings.load(Idea2ImgSettings, options.config, [*given, *overrides])


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _read(options: argparse.Namespace, words: Sequence[str]) -> tuple[list[Idea], list[str]]:
    """Ideas, and what a person would ask the image model for."""
    if bool(words) == (options.ideas is not None):
        raise UsageError("give one idea, its texts and images in order, or --ideas FILE")
    if options.ideas is None:
        ideas = [read_idea(words, Path(), "the idea")]
    else:
        ideas = read_ideas(options.ideas)
    for number, idea in enumerate(ideas, 1):
        for part in idea.parts:
            if isinstance(part, str):
                check_prompt(part.strip(), f"idea {number}")
    if options.prompt is not None and (options.manual is not None or len(ideas) > 1):
        raise UsageError("--prompt is for one idea; give --manual FILE, a prompt a line, for many")
    if options.prompt is not None:
        return ideas, [check_prompt(options.prompt.strip(), "--prompt")]
    return ideas, [] if options.manual is None else read_prompts(options.manual)


def _check_world(settings: Idea2ImgSettings, ideas: Sequence[Idea]) -> None:
    """Tell at once what the miniature world's language model cannot read.

    Raises:
        ValueError: It is another world's idea.
    """
    if not settings.miniature_lmm:
        return
    for idea in ideas:
        try:
            vision_of(idea)
        except ValueError as error:
            raise ValueError(
                f"{error}. The miniature world's language model knows its shapes alone: ask like "
                f"'something red next to a star', 'two blue things', or 'like {MARK}' with a "
                "picture of that world; for anything else name a language model (lmm.model, "
                "lmm.base_url) and an image model"
            ) from None


def _parser() -> Parser:
    parser = Parser(
        prog="staged idea2img",
        description=_DESCRIPTION,
        epilog=f"settings:\n{job_settings.describe(Idea2ImgSettings)}\n\n{_EXAMPLE}",
        figures=True,
    )
    add = parser.add_argument
    add(
        "words",
        nargs="*",
        metavar="IDEA",
        help="texts and images of one idea, in order; also settings, as key=value",
    )
    parser.set_defaults(overrides=[])  # settings may stand behind an option too
    add("--ideas", type=Path, metavar="FILE", help="many ideas, one a line")
    add(
        "--prompt",
        metavar="TEXT",
        help="what a person would ask the image model for, to compare with (default: the idea)",
    )
    add("--manual", type=Path, metavar="FILE", help="the same for many ideas, one a line")
    words = "; ".join(
        f"{name}: up to {policy.max_rounds} rounds of {policy.num_prompts}, {policy.selection}"
        for name, policy in PRESETS.items()
    )
    add("--preset", choices=list(PRESETS), help=f"how to explore; {words}; default: paper")
    add("--config", type=Path, metavar="FILE", help="settings, beneath those that are given")
    add_out_folder(parser, words="folder to write; the same command goes on in it")
    add(
        "--seed",
        type=seed,
        metavar="N",
        help="of what is drawn at random; default: what the settings say, 0",
    )
    add("--retry-failed", action="store_true", help="try again what broke off")
    add_options(parser)
    return parser
