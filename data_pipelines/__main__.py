"""The command line of `staged data`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data_pipelines.folder_commands import add_folder_commands
from data_pipelines.job_command import RunJob, add_job
from staged.command_line import Parser, add_overrides, console, exit_codes, on_ray, outputs
from staged.command_line.applications import run_as_module
from staged.settings import load

SHARED = ("plan-sketch", "critique", "refine", "import")
"""Jobs that take `--rank` and `--world-size`."""
_RETRIES = 16
"""Times that a task is started again whose worker died: what was paid for stands in the ledger."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `staged data`.

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

    mend = commands.add_parser(
        "refine",
        figures=True,
        help="images, what is wrong with them and better ones to explained corrections",
        epilog="example: staged data refine --out data/refine "
        "'sources=[{path: data/genref, format: genref}]' count=500\n\n"
        "The same command goes on where a job was interrupted.",
    )
    add_job(mend, _refine)

    take = commands.add_parser(
        "import",
        figures=True,
        help="data sets of others to trajectories",
        description="Read data sets of others from their published schemas: BAGEL's own parquet "
        "files, conversations as LLaVA has them, Zebra-CoT, ThinkMorph, UMM-Reflection, and rows "
        "of any schema by a map of its fields. Rows that cannot be used are counted by reason.",
        epilog="examples:\n"
        "  staged data import --out data/zebra \\\n"
        "      'sources=[{path: downloads/Zebra-CoT, format: zebra-cot, licence: CC-BY-NC-4.0}]'\n"
        "  staged data import --out data/edits 'sources=[{path: downloads/pix2pix, format: rows,\n"
        "      fields: {prompt: edit_prompt, inputs: original_image, image: edited_image}}]'\n\n"
        "The same command goes on where a job was interrupted.",
    )
    add_job(take, _import)

    diet = commands.add_parser(
        "base",
        figures=True,
        help="one-shot images, edits and descriptions of the miniature world",
        epilog="example: staged data base configs/shapes/base_data.yaml num_samples=20000",
    )
    diet.add_argument("config", type=Path, help="YAML file")
    add_overrides(diet)
    diet.set_defaults(run=_base)

    cluster = commands.add_parser(
        "on-ray",
        help="a job shared by a Ray cluster",
        description="Share a job as tasks of a Ray cluster (pip install staged[ray]). The cluster "
        "needs a file system in common, whose locks reach all machines. A task whose worker or "
        "machine died is started again and goes on.",
        epilog="example:\n"
        "  staged data on-ray 8 plan-sketch configs/data/plan_sketch_apache.yaml \\\n"
        "      --out data/plan_sketch prompts.count=32000\n\n"
        "The same command goes on where it was interrupted, also with another number of tasks.",
    )
    on_ray.add_arguments(cluster, SHARED)
    cluster.set_defaults(run=partial(on_ray.share, "data_pipelines", retries=_RETRIES))

    add_folder_commands(commands)
    return parser


def _plan_sketch() -> tuple[type[Any], RunJob]:
    from data_pipelines.plan_sketch.job import run_job
    from data_pipelines.plan_sketch.settings import PlanSketchSettings

    return PlanSketchSettings, run_job


def _critique() -> tuple[type[Any], RunJob]:
    from data_pipelines.critique.job import run_job
    from data_pipelines.critique.settings import CritiqueSettings

    return CritiqueSettings, run_job


def _refine() -> tuple[type[Any], RunJob]:
    from data_pipelines.refine.job import run_job
    from data_pipelines.refine.settings import RefineSettings

    return RefineSettings, run_job


def _import() -> tuple[type[Any], RunJob]:
    from data_pipelines.imports.job import run_job
    from data_pipelines.imports.settings import ImportJobSettings

    return ImportJobSettings, run_job


def _base(arguments: argparse.Namespace) -> int:
    from data_pipelines.base import BaseSettings, build

    settings = load(BaseSettings, arguments.config, arguments.overrides)
    outputs.folder(settings.out)
    counts = build(settings)
    print(", ".join(f"{kind} {number}" for kind, number in sorted(counts.items())))
    print(f"wrote {settings.out}")
    console().figures({"out": str(settings.out), "samples": dict(counts)})
    return exit_codes.OK


if __name__ == "__main__":
    sys.exit(run_as_module("data_pipelines", __file__, main))
