"""`staged train CONFIG [key=value …]`: fine-tune on one process."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from staged import settings as job_settings
from staged.command_line import Parser, add_overrides, console, exit_codes, outputs
from staged.command_line.applications import run_as_module
from staged.shards.folder import shard_paths
from train.settings import TrainSettings

_EPILOG = """
example:
  staged train configs/shapes/base.yaml out=runs/base num_steps=2000

The same command continues an interrupted run, bit for bit on a CPU.

settings:
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, report where the checkpoint lies."""
    parser = Parser(
        prog="staged train",
        description="Fine-tune a BAGEL on trajectories.",
        figures=True,
        epilog=_EPILOG + job_settings.describe(TrainSettings),
    )
    parser.add_argument("config", help="YAML file; see configs/")
    add_overrides(parser)
    parser.add_argument(
        "--export",
        action="store_true",
        help="train no further: write the checkpoint of the newest state",
    )
    arguments = parser.parse_args(argv)
    settings = job_settings.load(TrainSettings, arguments.config, arguments.overrides)
    for subset in settings.data:
        shard_paths(subset.path)
    outputs.folder(settings.out)
    if settings.cache is not None:
        outputs.folder(settings.cache)
    # What follows needs torch; `--help` does not.
    from train.job import Trainer

    trainer = Trainer(settings)
    if trainer.step >= settings.num_steps and not arguments.export:
        print(f"all {settings.num_steps} steps were taken before; writing the checkpoint again")
    folder = trainer.export() if arguments.export else trainer.run()
    print(f"checkpoint: {folder}")
    console().figures({"checkpoint": str(folder), "step": trainer.step})
    return exit_codes.OK


if __name__ == "__main__":
    sys.exit(run_as_module("train", __file__, main))
