"""`python -m train.autoencoder CONFIG [key=value …]`."""

from __future__ import annotations

import argparse
import json
import sys

from staged import settings as job_settings
from train.autoencoder.job import train
from train.autoencoder.settings import AutoencoderJob

_EPILOG = """
example:
  python -m train.autoencoder configs/shapes/autoencoder.yaml out=out/autoencoder num_threads=2

settings:
"""


def main(argv: list[str] | None = None) -> int:
    """Run `python -m train.autoencoder CONFIG [key=value ...]`; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.autoencoder",
        description="Train the miniature world's autoencoder; an interrupted run goes on.",
        epilog=_EPILOG + job_settings.describe(AutoencoderJob),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="YAML file, such as configs/shapes/autoencoder.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args(argv)
    job = job_settings.load(AutoencoderJob, arguments.config, arguments.overrides)
    print(json.dumps(train(job)["metrics"], indent=2))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
