"""The command line of `staged paper`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from staged import settings as job_settings
from staged.command_line import Parser, UsageError, add_overrides, console, exit_codes, natural
from staged.jobs.budget import BudgetError
from staged.jobs.progress import duration

if TYPE_CHECKING:
    from eval.paper.settings import PaperSettings
    from staged.cli.paper.work import Todo

_DESCRIPTION = """Build what a study needs, draw its cells, and write its tables and figures. What
is there is not made again, so the same command goes on where it was interrupted. Cells are paired
prompt by prompt, and every number comes from the lines of the samples that were kept."""
_EXAMPLE = """examples:
  staged paper configs/paper/miniature.yaml --dry-run
  staged paper configs/paper/miniature.yaml "prompts.seeds=[0]" --only base staged
  staged paper configs/paper/miniature.yaml --write-only

Two processes can share a study: give each its own cells by --only."""


def main(argv: list[str]) -> int:
    """Run the command.

    Returns:
        0; or 3 when the budget of a language model stopped it.

    Raises:
        ValueError: The study is not as it must be, or a step failed.
        OSError: A file cannot be read or written.
    """
    options = _parser().parse_args(argv)
    if options.write_only and (options.only or options.dry_run):
        raise UsageError("--write-only draws nothing, so it takes no --only and no --dry-run")
    # What it needs is heavy, and `--help` should answer at once.
    from eval.paper.settings import PaperSettings
    from staged.cli.paper.work import steps

    settings = job_settings.load(PaperSettings, options.config, options.overrides)
    todo = steps(settings, options.only)
    if options.dry_run:
        return _tell([step.todo() for step in todo])
    if not options.write_only:
        for number, step in enumerate(todo, 1):
            print(f"[{number}/{len(todo)}] {step.name}", flush=True)
            try:
                step.do(options.threads)
            except BudgetError as stop:
                print(f"stopped: {stop}; raise it, and the same command goes on")
                return exit_codes.STOPPED
    _write(settings, shlex.join(["staged", "paper", str(options.config), *options.overrides]))
    return exit_codes.OK


def _write(settings: PaperSettings, command: str) -> None:
    """Write the pages, and say where."""
    from eval.paper.markdown import write_markdown
    from eval.paper.study import DrawnStudy
    from eval.paper.web import report_of

    study = DrawnStudy(settings, command)
    pages = [report_of(study).write(settings.out / "report.html")]
    if settings.page is not None:
        write_markdown(study, settings.page)
        pages.append(settings.page)
    for claim in study.claims():
        print(claim.text)
    print(f"wrote {' and '.join(map(str, pages))}")
    cells = {name: one and one.run.result.figures() for name, one in study.cells.items()}
    console().figures({"pages": list(map(str, pages)), "cells": cells})


def _tell(rows: Sequence[Todo]) -> int:
    """Say what is left to do, and how long it takes."""
    width = max(len(row.name) for row in rows)
    print(f"{'':{width}}  {'one core':>9} {'one H100':>9}  left")
    for row in rows:
        took = [duration(row.cpu_s), duration(row.h100_s)] if row.left else ["", ""]
        print(
            f"{row.name:{width}}  {took[0]:>9} {took[1]:>9}  {row.left or 'nothing'}: {row.words}"
        )
    cpu_s, h100_s = sum(row.cpu_s for row in rows), sum(row.h100_s for row in rows)
    print(
        f"{'all':{width}}  {duration(cpu_s):>9} {duration(h100_s):>9}  (of one H100 by arithmetic)"
    )
    plain = [dict(vars(row)) for row in rows]
    console().figures({"cpu_s": cpu_s, "h100_s": h100_s, "steps": plain})
    return exit_codes.OK


def _parser() -> Parser:
    parser = Parser(prog="staged paper", description=_DESCRIPTION, epilog=_EXAMPLE, figures=True)
    add = parser.add_argument
    add("config", type=Path, help="YAML file of the study; see configs/paper")
    add_overrides(parser)
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="CELL",
        help="draw these cells, with what they need; the page shows whatever is there",
    )
    add("--dry-run", action="store_true", help="only say what is left, and how long it takes")
    add("--write-only", action="store_true", help="build and draw nothing, write the pages anew")
    add("--threads", type=natural, default=0, help="of torch; 0 leaves its own choice")
    return parser
