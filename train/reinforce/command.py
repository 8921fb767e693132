"""`staged reinforce CONFIG [key=value …]`: learn from graded rollouts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from staged import settings as job_settings
from staged.command_line import Parser, add_overrides, console, exit_codes, outputs
from staged.generate.requests import read_prompts
from train.reinforce.settings import ReinforceSettings
from train.run_lock import alone_together, require_nobody_yet

_EPILOG = """
example:
  staged shapes prompts --split train --seed 1 --out runs/prompts.txt
  staged shapes prompts --split train --seed 2 --num-per-task 8 --out runs/probe.txt
  staged reinforce configs/shapes/reinforce.yaml out=runs/reinforced iterations=40

  torchrun --nproc-per-node 8 -m staged reinforce CONFIG packs_per_step=8

The same command continues an interrupted run, bit for bit on a CPU. What an iteration drew is shown
by `staged report runs/reinforced/rollouts/00040`.

settings:
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, reinforce, report where the result lies.

    Returns:
        0; 1 where the policy collapsed before its last iteration.

    Raises:
        ValueError: Settings, prompts or an earlier state are not as they must be.
        OSError: A file cannot be read or written.
    """
    parser = Parser(
        prog="staged reinforce",
        description="Let a BAGEL draw and decide more often what scored well.",
        figures=True,
        epilog=_EPILOG + job_settings.describe(ReinforceSettings),
    )
    parser.add_argument("config", help="YAML file; see configs/")
    add_overrides(parser)
    arguments = parser.parse_args(sys.argv[1:] if argv is None else argv)
    settings = job_settings.load(ReinforceSettings, arguments.config, arguments.overrides)
    read_prompts(settings.prompts)
    if settings.probe is not None:
        read_prompts(settings.probe.prompts)
    outputs.folder(settings.out)
    require_nobody_yet(settings.out)
    # Of a lost rank torch tells dozens of lines of its own; ours are one. Read when it is loaded.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # What follows needs torch; `--help` does not.
    from train.ranks import joined
    from train.reinforce.job import Reinforcer

    with joined(settings.parallel, settings.device) as ranks, alone_together(settings.out, ranks):
        reinforcer = Reinforcer(settings, ranks)
        folder = reinforcer.run()
    if ranks.is_first:
        print(f"checkpoint: {folder}")
        console().figures({"checkpoint": str(folder), "iteration": reinforcer.iteration})
        if reinforcer.stopped:
            print(f"stopped: {reinforcer.stopped}", file=sys.stderr)
    return exit_codes.FAILED if reinforcer.stopped else exit_codes.OK
