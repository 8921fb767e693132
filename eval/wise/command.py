"""The command line of `staged eval wise`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.generation.provenance import made
from eval.results import Result, unscored_message
from eval.statistics import METHOD
from eval.tables import plain, show, show_interval
from eval.wise.judgements import read_judgements
from eval.wise.summary import summarise
from eval.wise.versions import VERSIONS, WEIGHTINGS

EXIT_OK, EXIT_UNSCORED = 0, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run `staged eval wise`.

    Args:
        argv: Arguments after `staged eval wise`; the process's own when None.

    Returns:
        0 for success, 1 when samples are unscored and that was not allowed.

    Raises:
        ValueError: a file is not as it must be.
        OSError: a file cannot be read or written.
    """
    arguments = _parser().parse_args(argv)
    version = VERSIONS[arguments.version]
    judgements = read_judgements(arguments.judgements, version)
    images = made(arguments.generated, [arguments.judgements]) if arguments.generated else None
    result = summarise(
        judgements,
        version,
        weighting=arguments.weighting,
        judge=arguments.judge or judgements.judge,
        run=arguments.name or (images.name if images else arguments.judgements.stem),
        provenance=images.provenance if images else {},
    )
    result.write(arguments.out)
    print(render(result))
    for reason, number in judgements.unscored.most_common():
        print(f"unscored: {number}, {reason}")
    if judgements.num_fractions and not version.aspects:
        print(
            f"note: {judgements.num_fractions} scores are neither 0 nor 1, so they are not single "
            f"verdicts of the {version.name} judge"
        )
    print(f"wrote {arguments.out}")
    problem = unscored_message("staged eval wise", [result.overall])
    if problem is None or arguments.allow_unscored:
        return EXIT_OK
    print(problem, file=sys.stderr)
    return EXIT_UNSCORED


def render(result: Result) -> str:
    """Write the table of a result for a terminal."""
    rows = [
        [
            name,
            show(estimate.value),
            show_interval(estimate),
            str(estimate.n),
            str(estimate.unscored),
        ]
        for name, estimate in result.estimates.items()
    ]
    variant = result.variant
    title = f"WISE {variant['version']}, {variant['weighting']} weights, judge {variant['judge']}"
    table = plain(["category", "score", "interval", "n", "unscored"], [*rows[1:], rows[0]])
    return f"{title}\n{table}\nintervals: {METHOD}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="staged eval wise",
        description="Aggregate judgements of WISE.",
        epilog="example: staged eval wise --judgements judged.jsonl --version verified "
        "--weighting official --judge Qwen3.5-35B-A3B --out wise.json\n\n"
        'A line of FILE is {"prompt_id": 1, "score": 1}, or for the legacy version '
        '{"prompt_id": 1,\n"consistency": 2, "realism": 1, "aesthetic_quality": 1}.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--judgements", type=Path, required=True, metavar="FILE", help="JSON lines, an image each"
    )
    parser.add_argument(
        "--version", choices=list(VERSIONS), required=True, help="the prompts that were drawn"
    )
    parser.add_argument(
        "--weighting",
        choices=WEIGHTINGS,
        default="official",
        help="of the categories; `bagel` is the plain mean of its script (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, help="result file (JSON)")
    parser.add_argument("--judge", metavar="MODEL", help="who judged, where the lines do not say")
    parser.add_argument(
        "--generated",
        type=Path,
        metavar="FOLDER",
        help="of `staged eval generate`: the result says how its images were made, after a check "
        "that they are the ones that were judged",
    )
    parser.add_argument(
        "--name", help="of the run, for tables (default: the generator's, or the file's)"
    )
    parser.add_argument(
        "--allow-unscored", action="store_true", help="succeed although samples have no score"
    )
    return parser
