"""The command line of every job that builds a data set."""

import argparse
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from data_pipelines.summary import JobSummary
from staged.command_line import (
    Parser,
    Part,
    UsageError,
    add_out_folder,
    add_overrides,
    console,
    exit_codes,
)
from staged.jobs.rank import add_options, rank_of
from staged.settings import describe, load

S = TypeVar("S")


RunJob = Callable[..., JobSummary]
"""Does what is left of a job: takes settings, folder, `rank` and `retry_failed` as
`data_pipelines.job.run_job` does, and of jobs that draw `editors`, an `Editors`."""


def job(
    opened: Callable[[], tuple[type[Any], RunJob]],
    *,
    help: str,
    epilog: str,
    description: str | None = None,
    draws: bool = False,
) -> Part:
    """The row of a job in a table of commands.

    Args:
        opened: Imports the job's settings class and what runs it, once that is wanted.
        help: See `Part`.
        epilog: See `Part`.
        description: See `Part`.
        draws: It has an image editor, which may be elsewhere.
    """
    return Part(
        help=help,
        options=partial(_options, draws=draws),
        run=lambda arguments: _run(arguments, *opened()),
        epilog=epilog,
        description=description,
    )


def _options(parser: Parser, *, draws: bool) -> None:
    parser.add_argument("config", nargs="?", type=Path, help="YAML file; defaults without one")
    add_overrides(parser)
    add_out_folder(parser, required=False, words="folder of the data set; must be given")
    add_options(parser)
    parser.add_argument(
        "--retry-failed", action="store_true", help="try again what services failed at"
    )
    if draws:
        parser.add_argument(
            "--editor-pool",
            metavar="NAMES",
            help="editors of a Ray cluster that draw; `on-ray --editors` says it to its tasks",
        )
    parser.add_argument("--settings", action="store_true", help="list every setting and stop")


def print_reasons(
    reasons: Mapping[str, Mapping[str, int]], examples: Mapping[tuple[str, str], str] | None = None
) -> None:
    """Print counts by stage and reason, most frequent first."""
    for stage, rows in reasons.items():
        for reason, number in sorted(rows.items(), key=lambda row: -row[1]):
            said = (examples or {}).get((stage, reason), "")
            print(f"  {stage}: {reason}: {number}{f', such as {said!r}' if said else ''}")


def _run(arguments: argparse.Namespace, settings_class: type[Any], run: RunJob) -> int:
    if arguments.settings:
        print(describe(settings_class))
        return exit_codes.OK
    config, overrides = arguments.config, arguments.overrides
    if config is not None and "=" in str(config):
        config, overrides = None, [str(config), *overrides]
    if arguments.out is None:
        raise UsageError("--out is missing: name the folder of the data set")
    report = run(
        load(settings_class, config, overrides),
        arguments.out,
        rank=rank_of(arguments.rank, arguments.world_size),
        retry_failed=arguments.retry_failed,
        **_editors(arguments),
    )
    return _tell(report, arguments.out)


def _editors(arguments: argparse.Namespace) -> dict[str, Any]:
    """Find the editors that are elsewhere, if the command line says so."""
    pool = getattr(arguments, "editor_pool", None)
    if pool is None:
        return {}
    from data_pipelines.ray_editors import RayEditors

    return {"editors": RayEditors(pool.split(","))}


def _tell(report: JobSummary, folder: Path) -> int:
    print(f"accepted {report.accepted}, rejected {report.rejected}, failed {report.failed}")
    print_reasons(report.reasons, report.examples)
    console().figures(
        {
            "accepted": report.accepted,
            "rejected": report.rejected,
            "failed": report.failed,
            "unfinished": report.unfinished,
            "reasons": report.reasons,
        }
    )
    if report.stopped:
        print(
            f"stopped: {report.stopped}; {report.unfinished} prompts are left. Raise the budget "
            "and run the same command to go on.",
            file=sys.stderr,
        )
        return exit_codes.STOPPED
    if report.unfinished:
        print(f"{report.unfinished} prompts are left to other ranks, and the shards with them")
        return exit_codes.OK
    if report.new:
        print(f"wrote {folder}")
    else:
        print(f"nothing was left to do: {folder} is finished")
    if not report.accepted:
        print("no sample was accepted; the reasons are above", file=sys.stderr)
        return exit_codes.FAILED
    return exit_codes.OK
