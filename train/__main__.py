"""`staged train CONFIG [key=value …]`: fine-tune on one process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from staged import settings as job_settings
from train.settings import TrainSettings

_EPILOG = """
example:
  staged train configs/shapes/base.yaml out=runs/base num_steps=2000

The same command continues an interrupted run, bit for bit on a CPU.

settings:
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, report where the checkpoint lies."""
    parser = argparse.ArgumentParser(
        prog="staged train",
        description="Fine-tune a BAGEL on trajectories.",
        epilog=_EPILOG + job_settings.describe(TrainSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="YAML file; see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to settings")
    parser.add_argument(
        "--export",
        action="store_true",
        help="train no further: write the checkpoint of the newest state",
    )
    arguments = parser.parse_intermixed_args(argv)
    settings = job_settings.load(TrainSettings, arguments.config, arguments.overrides)
    from train.job import Trainer

    trainer = Trainer(settings)
    folder = trainer.export() if arguments.export else trainer.run()
    print(f"checkpoint: {folder}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
