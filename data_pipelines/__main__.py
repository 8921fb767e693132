"""The command line of `staged data`."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data_pipelines import on_ray
from data_pipelines.folder_commands import FOLDER_COMMANDS
from data_pipelines.job_command import RunJob, job
from staged.command_line import (
    Parser,
    Part,
    add_overrides,
    add_parts,
    console,
    exit_codes,
    outputs,
    run_part,
)
from staged.command_line.applications import run_as_module
from staged.settings import load


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
    parser = Parser(
        prog="staged data",
        description="Build data sets of trajectories, and look at them.",
        epilog="example: staged data plan-sketch configs/shapes/plan_sketch_data.yaml "
        "prompts.count=200 --out data/shapes",
    )
    add_parts(parser, {**_JOBS, **_OTHERS, **FOLDER_COMMANDS})
    return run_part(parser, argv)


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


def _base_options(parser: Parser) -> None:
    parser.add_argument("config", type=Path, help="YAML file")
    add_overrides(parser)


_GOES_ON = "\n\nThe same command goes on where a job was interrupted."
_JOBS = {
    "plan-sketch": job(
        _plan_sketch,
        help="prompts to trajectories of plans, sketches, inspections and refinements",
        epilog="example: staged data plan-sketch configs/shapes/plan_sketch_data.yaml "
        f"--out data/shapes prompts.count=5000 critiques.inspect=plans{_GOES_ON}",
        draws=True,
    ),
    "critique": job(
        _critique,
        help="a checkpoint's own plans and sketches to critiques and corrections",
        epilog="example: staged data critique configs/shapes/critique_data.yaml "
        "generator.checkpoint=runs/first/checkpoint --out data/critique prompts.count=5000"
        f"{_GOES_ON}",
        draws=True,
    ),
    "refine": job(
        _refine,
        help="images, what is wrong with them and better ones to explained corrections",
        epilog="example: staged data refine --out data/refine "
        f"'sources=[{{path: data/genref, format: genref}}]' count=500{_GOES_ON}",
    ),
    "import": job(
        _import,
        help="data sets of others to trajectories",
        description="Read data sets of others from their published schemas: BAGEL's own parquet "
        "files, conversations as LLaVA has them, Zebra-CoT, ThinkMorph, UMM-Reflection, and rows "
        "of any schema by a map of its fields. Rows that cannot be used are counted by reason.",
        epilog="examples:\n"
        "  staged data import --out data/zebra \\\n"
        "      'sources=[{path: downloads/Zebra-CoT, format: zebra-cot, licence: CC-BY-NC-4.0}]'\n"
        "  staged data import --out data/edits 'sources=[{path: downloads/pix2pix, format: rows,\n"
        "      fields: {prompt: edit_prompt, inputs: original_image, image: edited_image}}]'"
        f"{_GOES_ON}",
    ),
}
"""Jobs that take `--rank` and `--world-size`."""
_DRAWING = ("plan-sketch", "critique")
"""Those of them that have an image editor."""
_OTHERS = {
    "base": Part(
        help="one-shot images, edits and descriptions of the miniature world",
        epilog="example: staged data base configs/shapes/base_data.yaml num_samples=20000",
        options=_base_options,
        run=_base,
    ),
    "on-ray": Part(
        help="a job shared by a Ray cluster",
        description="Share a job as tasks of a Ray cluster (pip install staged[ray]). The cluster "
        "needs a file system in common, whose locks reach all machines. A task whose worker or "
        "machine died is started again and goes on. With --editors few GPUs draw for many tasks: "
        "one that dies is started again, and what it was asked for is drawn again.",
        epilog="examples:\n"
        "  staged data on-ray 8 plan-sketch configs/data/plan_sketch_apache.yaml \\\n"
        "      --out data/plan_sketch prompts.count=32000\n"
        "  staged data on-ray --editors 4 16 plan-sketch configs/data/plan_sketch_openai.yaml \\\n"
        "      --out data/plan_sketch prompts.count=32000\n\n"
        "The same command goes on where it was interrupted, also with another number of tasks.",
        options=partial(on_ray.add_arguments, shared=tuple(_JOBS)),
        run=partial(on_ray.run, drawing=_DRAWING),
        figures=False,
    ),
}


if __name__ == "__main__":
    sys.exit(run_as_module("data_pipelines", __file__, main))
