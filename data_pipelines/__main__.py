"""The command line of `staged data`."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.job_command import RunJob, add_job, print_reasons
from staged.command_line import (
    Parser,
    add_out_file,
    add_overrides,
    console,
    count,
    exit_codes,
    outputs,
)
from staged.command_line.applications import run_as_module
from staged.settings import load
from staged.shards import damage, read_manifest, validate


def main(argv: Sequence[str] | None = None) -> int:
    """RunJob `staged data`.

    Args:
        argv: Arguments after `staged data`; the process's own when None.

    Returns:
        0 for success, 1 when `validate` found something wrong or a job accepted nothing, 3 when a
        budget stopped a job.

    Raises:
        ValueError: settings, prompts or a data set are not as they must be.
    """
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def _parser() -> Parser:
    parser = Parser(
        prog="staged data",
        description="Build data sets of trajectories, and look at them.",
        epilog="example: staged data plan-sketch configs/shapes/plan_sketch_data.yaml "
        "prompts.count=200 --out data/shapes",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", help="what to do"
    )

    make = commands.add_parser(
        "plan-sketch",
        figures=True,
        help="prompts to trajectories of plans, sketches, inspections and refinements",
        epilog="example: staged data plan-sketch configs/shapes/plan_sketch_data.yaml "
        "--out data/shapes prompts.count=5000 critiques.inspect=plans\n\n"
        "The same command goes on where a job was interrupted.",
    )
    add_job(make, _plan_sketch)

    judge = commands.add_parser(
        "critique",
        figures=True,
        help="a checkpoint's own plans and sketches to critiques and corrections",
        epilog="example: staged data critique configs/shapes/critique_data.yaml "
        "generator.checkpoint=runs/first/checkpoint --out data/critique prompts.count=5000\n\n"
        "The same command goes on where a job was interrupted.",
    )
    add_job(judge, _critique)

    diet = commands.add_parser(
        "base",
        figures=True,
        help="one-shot images, edits and descriptions of the miniature world",
        epilog="example: staged data base configs/shapes/base_data.yaml num_samples=20000",
    )
    diet.add_argument("config", type=Path, help="YAML file")
    add_overrides(diet)
    diet.set_defaults(run=_base)

    check = commands.add_parser(
        "validate",
        figures=True,
        help="check every byte of a data set",
        epilog="example: staged data validate data/shapes",
    )
    check.add_argument("folder", type=Path, help="of the data set")
    check.set_defaults(run=_validate)

    tally = commands.add_parser(
        "stats",
        figures=True,
        help="count samples, steps, verdicts, reasons and cost",
        epilog="example: staged data stats data/shapes",
    )
    tally.add_argument("folder", type=Path, help="of the data set")
    tally.set_defaults(run=_stats)

    show = commands.add_parser(
        "preview",
        help="show trajectories on one web page",
        epilog="example: staged data preview data/shapes --out preview.html --limit 40",
    )
    show.add_argument("folder", type=Path, help="of the data set")
    add_out_file(show, required=False, words="page to write; FOLDER/preview.html without it")
    show.add_argument("--limit", type=count, default=24, help="most trajectories of each kind")
    show.set_defaults(run=_preview)
    return parser


def _plan_sketch() -> tuple[type[Any], RunJob]:
    from data_pipelines.plan_sketch.job import run_job
    from data_pipelines.plan_sketch.settings import PlanSketchSettings

    return PlanSketchSettings, run_job


def _critique() -> tuple[type[Any], RunJob]:
    from data_pipelines.critique.job import run_job
    from data_pipelines.critique.settings import CritiqueSettings

    return CritiqueSettings, run_job


def _base(arguments: argparse.Namespace) -> int:
    from data_pipelines.base import BaseSettings, build

    settings = load(BaseSettings, arguments.config, arguments.overrides)
    outputs.folder(settings.out)
    counts = build(settings)
    print(", ".join(f"{kind} {number}" for kind, number in sorted(counts.items())))
    print(f"wrote {settings.out}")
    console().figures({"out": str(settings.out), "samples": dict(counts)})
    return exit_codes.OK


def _validate(arguments: argparse.Namespace) -> int:
    found = validate(arguments.folder)
    for problem in found.problems:
        print(f"damaged: {problem}", file=sys.stderr)
    print(f"{found.samples} samples, {len(found.problems)} problems")
    console().figures({"samples": found.samples, "problems": list(found.problems)})
    return exit_codes.OK if found.ok else exit_codes.FAILED


def _stats(arguments: argparse.Namespace) -> int:
    manifest = read_manifest(arguments.folder)
    for name, value in manifest.stats.items():
        if not isinstance(value, Mapping):
            print(f"{name}: {value}")
            continue
        for key, number in value.items():
            shown = (
                ", ".join(f"{inner} {n}" for inner, n in number.items())
                if isinstance(number, Mapping)
                else number
            )
            print(f"{name}, {key}: {shown}")
    print_reasons(manifest.acceptance)
    for unit, amount in manifest.cost.items():
        print(f"cost of everything, {unit}: {amount:g}")
    problems = damage(arguments.folder)
    console().figures(
        {
            "stats": manifest.stats,
            "acceptance": manifest.acceptance,
            "cost": manifest.cost,
            "problems": problems,
        }
    )
    for problem in problems:
        print(f"damaged: {problem}", file=sys.stderr)
    return exit_codes.FAILED if problems else exit_codes.OK


def _preview(arguments: argparse.Namespace) -> int:
    from data_pipelines.preview import write_preview

    path = arguments.out or outputs.file(arguments.folder / "preview.html")
    number = write_preview(arguments.folder, path, number=arguments.limit)
    print(f"wrote {path} with {number} trajectories")
    return exit_codes.OK


if __name__ == "__main__":
    sys.exit(run_as_module("data_pipelines", __file__, main))
