"""`staged eval on-ray N COMMAND …`: a command that shares its work, as N tasks of a Ray cluster.

The tasks exchange nothing but files, so the cluster needs a file system in common, and N may be
larger than what runs at once. Where there are GPUs, each task has one.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from staged.command_line import Parser, UsageError
from staged.command_line.applications import prefer_ours

SHARED = ("generate", "miniature", "detect", "answer-geneval2", "rewards")
"""Commands that take `--rank` and `--world-size`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `staged eval on-ray`.

    Args:
        argv: Arguments after `staged eval on-ray`; the process's own when None.

    Returns:
        The highest exit status of all tasks.

    Raises:
        ValueError: the command cannot be shared, or a task failed with one.
    """
    options = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    if options.processes < 1:
        raise UsageError(f"{options.processes} processes; give at least 1")
    import ray

    if not ray.is_initialized():
        ray.init(address=options.address)
    gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
    task = ray.remote(num_gpus=gpus, max_retries=0)(_run)
    command = (options.command, *options.arguments)
    running = [
        task.remote(os.getcwd(), command, rank, options.processes)
        for rank in range(options.processes)
    ]
    return int(max(ray.get(running)))


def _run(folder: str, command: Sequence[str], rank: int, world_size: int) -> int:
    """Run one share where the others' paths mean the same."""
    os.chdir(folder)
    prefer_ours()
    from eval.__main__ import main as staged_eval

    return staged_eval([*command, "--rank", str(rank), "--world-size", str(world_size)])


def _parser() -> Parser:
    parser = Parser(
        prog="staged eval on-ray",
        description="Share a command's work as tasks of a Ray cluster (pip install staged[ray]).",
        epilog="example:\n"
        "  staged eval on-ray 32 generate --benchmark geneval --out out/images \\\n"
        "      --generator model checkpoint=ByteDance-Seed/BAGEL-7B-MoT\n\n"
        "The cluster needs a file system in common. The same command goes on where it was\n"
        "interrupted, also with another number of tasks.",
    )
    parser.add_argument("--address", help="of the cluster (default: RAY_ADDRESS, else a local one)")
    parser.add_argument("processes", type=int, metavar="N", help="tasks, of which some may wait")
    parser.add_argument("command", choices=SHARED, help="what each does a share of")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of that command")
    return parser
