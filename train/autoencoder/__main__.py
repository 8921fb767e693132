"""`python -m train.autoencoder CONFIG [key=value …]`."""

from __future__ import annotations

import json
import sys

from staged import settings as job_settings
from staged.command_line import Parser, add_overrides, console, outputs
from staged.command_line.applications import run_as_module
from train.autoencoder.settings import AutoencoderJob

_EPILOG = """
example:
  python -m train.autoencoder configs/shapes/autoencoder.yaml out=out/autoencoder num_threads=2

settings:
"""


def main(argv: list[str] | None = None) -> int:
    """Run `python -m train.autoencoder CONFIG [key=value ...]`; returns the exit code."""
    parser = Parser(
        prog="python -m train.autoencoder",
        description="Train the miniature world's autoencoder; an interrupted run goes on.",
        figures=True,
        epilog=_EPILOG + job_settings.describe(AutoencoderJob),
    )
    parser.add_argument("config", help="YAML file, such as configs/shapes/autoencoder.yaml")
    add_overrides(parser)
    arguments = parser.parse_args(argv)
    job = job_settings.load(AutoencoderJob, arguments.config, arguments.overrides)
    outputs.folder(job.out)
    # What follows needs torch; `--help` does not.
    from train.autoencoder.job import train

    metrics = train(job)["metrics"]
    print(json.dumps(metrics, indent=2))
    console().figures(metrics)
    return 0


if __name__ == "__main__":
    sys.exit(run_as_module("train.autoencoder", __file__, main))
