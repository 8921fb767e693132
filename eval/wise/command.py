"""The command line of `staged eval wise`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.results import BenchmarkResult
from eval.score_options import add_score_options, finish, origin_of, unscored_lines
from eval.statistics import METHOD
from eval.tables import counted_table
from eval.wise.judgements import read_judgements
from eval.wise.summary import summarise
from eval.wise.versions import VERSIONS, WEIGHTINGS
from staged.command_line import Parser, add_out_file


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
    path = arguments.judgements
    origin = origin_of(arguments, [path], default_name=path.stem)
    judge = arguments.judge or judgements.judge
    result = origin.told_in(
        summarise(judgements, version, weighting=arguments.weighting, judge=judge)
    )
    result.write(arguments.out)
    lines = unscored_lines(judgements.unscored)
    if judgements.num_fractions and not version.aspects:
        lines.append(
            f"note: {judgements.num_fractions} scores are neither 0 nor 1, so they are not single "
            f"verdicts of the {version.name} judge"
        )
    wrote = [arguments.out]
    return finish("staged eval wise", arguments, result, render(result), wrote, lines)


def render(result: BenchmarkResult) -> str:
    """Write the table of a result for a terminal."""
    overall, *parts = result.estimates.items()
    variant = result.variant
    title = f"WISE {variant['version']}, {variant['weighting']} weights, judge {variant['judge']}"
    table = counted_table("category", "score", [*parts, overall])
    return f"{title}\n{table}\nintervals: {METHOD}"


def _parser() -> Parser:
    parser = Parser(
        prog="staged eval wise",
        description="Aggregate judgements of WISE.",
        figures=True,
        epilog="example: staged eval wise --judgements judged.jsonl --version verified "
        "--weighting official --judge Qwen3.5-35B-A3B --out wise.json\n\n"
        'A line of FILE is {"prompt_id": 1, "score": 1}, or for the legacy version '
        '{"prompt_id": 1,\n"consistency": 2, "realism": 1, "aesthetic_quality": 1}.',
    )
    add = parser.add_argument
    add("--judgements", type=Path, required=True, metavar="FILE", help="JSON lines, an image each")
    add("--version", choices=list(VERSIONS), required=True, help="the prompts that were drawn")
    add(
        "--weighting",
        choices=WEIGHTINGS,
        default="official",
        help="of the categories; `bagel` is the plain mean of its script (default: %(default)s)",
    )
    add_out_file(parser, words="result file (JSON)")
    add("--judge", metavar="MODEL", help="who judged, where the lines do not say")
    add_score_options(parser, default_name="the file's")
    return parser
