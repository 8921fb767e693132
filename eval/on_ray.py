"""`staged eval on-ray N COMMAND …`: a command that shares its work, as N tasks of a Ray cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from staged.command_line import Parser, on_ray

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
    parser = Parser(
        prog="staged eval on-ray",
        description="Share a command's work as tasks of a Ray cluster (pip install staged[ray]).",
        epilog="example:\n"
        "  staged eval on-ray 32 generate --benchmark geneval --out out/images \\\n"
        "      --generator model checkpoint=ByteDance-Seed/BAGEL-7B-MoT\n\n"
        "The cluster needs a file system in common. The same command goes on where it was\n"
        "interrupted, also with another number of tasks.",
    )
    on_ray.add_arguments(parser, SHARED)
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    with on_ray.cluster(options) as ray:
        return on_ray.share(ray, "eval", options, retries=0)
