"""The command line of `staged eval judge-accuracy`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from eval.compare import compare
from eval.judge_accuracy.answers import read_judged, result_of
from eval.results import OVERALL, BenchmarkResult
from eval.score_options import exit_code
from eval.statistics import METHOD
from eval.tables import counted_table, difference_table
from staged.command_line import Parser, add_out_folder, console

_EPILOG = """examples:
  staged eval judge-accuracy out/preferred/sft/preferred.jsonl --out out/accuracy
  staged eval judge-accuracy out/preferred/*/preferred.jsonl --out out/accuracy

Files come from `staged self-reward prefer`; each is called as its folder. Of several about the same
pairs each is compared with the first. A judge that scores both pictures alike counts as a coin
would: right by half."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0, or 1 where pairs are unscored and that was not allowed.

    Raises:
        ValueError: A file is not as it must be, or two are about different pairs.
        OSError: A file cannot be read or written.
    """
    options = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    results: dict[str, BenchmarkResult] = {}
    for path in options.judged:
        name = _name(path)
        if name in results:
            raise ValueError(f"{path}: another judge is called {name} too; rename a folder")
        results[name] = result_of(read_judged(path), run=name)
    first, *others = results.values()
    gains = [
        (f"{other.run} over {first.run}", compare(other, first).estimates[OVERALL])
        for other in others
    ]
    rows = []
    for name, result in results.items():
        rows.append((name, result.overall))
        rows += [(f"  by {rubric}", found) for rubric, found in result.also.items()]
        result.write(options.out / f"{name}.json")
    print(counted_table("judge", "agrees", rows))
    if gains:
        print(difference_table(gains))
    print(f"intervals: {METHOD}")
    console().figures({name: result.figures() for name, result in results.items()})
    print(f"wrote {', '.join(str(options.out / f'{name}.json') for name in results)}")
    every = [*results.values()]
    return exit_code("staged eval judge-accuracy", every, allow_unscored=options.allow_unscored)


def _name(path: Path) -> str:
    return path.parent.name or path.stem


def _parser() -> Parser:
    parser = Parser(
        prog="staged eval judge-accuracy",
        description="Count in how many pairs of pictures a judge agrees with a known preference.",
        epilog=_EPILOG,
        figures=True,
    )
    parser.add_argument("judged", type=Path, nargs="+", metavar="FILE", help="what a judge said")
    add_out_folder(parser, words="folder for results")
    parser.add_argument(
        "--allow-unscored", action="store_true", help="succeed although pairs have no score"
    )
    return parser
