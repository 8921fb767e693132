"""A command that shares its work, as tasks of a Ray cluster (pip install staged[ray]).

The tasks exchange nothing but files, so the cluster needs a file system in common, and there may be
more tasks than run at once. Where there are GPUs, each task has one.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from importlib import import_module

from staged.command_line import Parser, UsageError, amount
from staged.command_line.applications import prefer_ours


def add_arguments(parser: Parser, shared: Sequence[str]) -> None:
    """Let a parser take the number of tasks, and the command that they share.

    Args:
        parser: Of the command in front.
        shared: Commands that take `--rank` and `--world-size`.
    """
    add = parser.add_argument
    add("--address", help="of the cluster (default: RAY_ADDRESS, else a local one)")
    add("--cpus", type=amount, default=1.0, metavar="N", help="processors that a task asks for")
    add("processes", type=int, metavar="N", help="tasks, of which some may wait")
    add("command", choices=shared, help="what each does a share of")
    add("arguments", nargs=argparse.REMAINDER, help="of that command")


def share(application: str, options: argparse.Namespace, *, retries: int) -> int:
    """Run the shares of a command, and wait for all.

    Args:
        application: Package whose `__main__.main` runs the command.
        options: Of a parser with `add_arguments`.
        retries: How often a task whose worker or machine died is started again; it goes on with
            what stands in its files. An error of the command itself is not repeated.

    Returns:
        The highest exit status of all tasks.

    Raises:
        UsageError: fewer than one task, or the extra is not installed.
        ValueError: a task failed with one.
    """
    if options.processes < 1:
        raise UsageError(f"{options.processes} processes; give at least 1")
    try:
        import ray
    except ImportError:
        raise UsageError("Ray is not installed: pip install 'staged[ray]'") from None

    joins = not ray.is_initialized()
    if joins:
        ray.init(address=options.address)
    try:
        gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
        task = ray.remote(num_cpus=options.cpus, num_gpus=gpus, max_retries=retries)(_run)
        command = (options.command, *options.arguments)
        running = [
            task.remote(application, os.getcwd(), command, rank, options.processes)
            for rank in range(options.processes)
        ]
        return int(max(ray.get(running)))
    finally:
        if joins:
            ray.shutdown()


def _run(application: str, folder: str, command: Sequence[str], rank: int, world_size: int) -> int:
    """Run one share where the others' paths mean the same."""
    os.chdir(folder)
    prefer_ours()
    main = import_module(f"{application}.__main__").main
    return int(main([*command, "--rank", str(rank), "--world-size", str(world_size)]))
