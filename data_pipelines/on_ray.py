"""`staged data on-ray N COMMAND …`: a job as N tasks of a Ray cluster, with editors beside them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from staged.command_line import Parser, UsageError, on_ray

_RETRIES: Final = 16
"""Times that a task is started again whose worker died: what was paid for stands in the ledger."""
_WITH_MODEL: Final = ("critique",)
"""Jobs whose ranks hold a checkpoint themselves, whoever edits."""


def add_arguments(parser: Parser, shared: Sequence[str]) -> None:
    """Let a parser take what `run` takes.

    Args:
        parser: Of the command.
        shared: Jobs.
    """
    parser.add_argument(
        "--editors",
        type=int,
        metavar="N",
        help="image editors apart from the tasks, which then need no GPU to draw "
        "(default: each task has its own)",
    )
    parser.add_argument(
        "--editor-gpus",
        type=on_ray.gpus,
        metavar="N",
        help="GPUs, or the share of one, of each editor (default: 1 where there are any)",
    )
    on_ray.add_arguments(parser, shared)


def run(options: argparse.Namespace, *, drawing: Sequence[str]) -> int:
    """Run a job as tasks, and wait for all.

    Args:
        options: Of a parser with `add_arguments`.
        drawing: Jobs that have an image editor.

    Returns:
        The highest exit status of all tasks.

    Raises:
        UsageError: what is asked for cannot be, or the extra is not installed.
        Exception: what a task failed with.
    """
    if options.editors is None:
        if options.editor_gpus is not None:
            raise UsageError("--editor-gpus is for editors apart; say how many with --editors")
        with on_ray.cluster(options) as ray:
            return on_ray.share(ray, "data_pipelines", options, retries=_RETRIES)
    if options.editors < 1:
        raise UsageError(f"--editors is {options.editors}; give at least 1, or leave it out")
    if options.command not in drawing:
        raise UsageError(
            f"--editors: {options.command} draws nothing, only {' and '.join(drawing)} do; leave "
            "it out"
        )
    with on_ray.cluster(options) as ray:
        from data_pipelines.ray_editors import start_editors

        one = 1.0 if on_ray.num_gpus(ray) else 0.0
        own = one if options.command in _WITH_MODEL else 0.0
        own = own if options.gpus is None else options.gpus
        gpus = one if options.editor_gpus is None else options.editor_gpus
        on_ray.require_gpus(ray, "--editors", gpus, options.editors, beside=own)
        # They end with what holds them.
        editors = start_editors(ray, options.editors, gpus=gpus)
        more = ["--editor-pool", ",".join(editors)]
        return on_ray.share(
            ray, "data_pipelines", options, retries=_RETRIES, by_default=own, more=more
        )
