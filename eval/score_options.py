"""What the commands that make results of scores have in common.

They are told whose images they were, say in the result what it rests on, and fail where samples
are unscored and nobody said that this will do.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from eval.downloads import sha256_of
from eval.generation.provenance import Made, made
from eval.results import BenchmarkResult, unscored_message
from eval.search.verifier import UPPER_BOUND, is_judge
from staged.command_line import console, exit_codes
from staged.lines import read_lines

_MAX_LINE_BYTES = 2**24


def add_score_options(parser: argparse.ArgumentParser, *, default_name: str) -> None:
    """Add `--generated`, `--name` and `--allow-unscored`.

    Args:
        parser: Of the command.
        default_name: What the run is called where no generator is known, for the help.
    """
    add = parser.add_argument
    add(
        "--generated",
        type=Path,
        metavar="FOLDER",
        help="of `staged eval generate`: the result says how its images were made, after a check "
        "that they are the ones that were scored",
    )
    add("--name", help=f"of the run, for tables (default: the generator's, or {default_name})")
    add("--allow-unscored", action="store_true", help="succeed although samples have no score")


def origin_of(
    arguments: argparse.Namespace, scores: Sequence[Path], *, default_name: str, judge: str = ""
) -> Made:
    """Say what a result rests on: its scores, and how the images were made where that is known.

    Args:
        arguments: With the options of `add_score_options`.
        scores: Files that the scores were read from.
        default_name: Of the run, where no other is known.
        judge: Who scored; where the same has chosen the images among candidates, name and
            provenance say that this is an upper bound.

    Raises:
        ValueError: other images were scored than those of `--generated`.
        OSError: a file cannot be read.
    """
    images = made(arguments.generated, scores) if arguments.generated else None
    name = arguments.name or (images.name if images else "") or default_name
    bound = {}
    if images and is_judge(images.verifier, judge):
        name, bound = f"{name}, {UPPER_BOUND}", {"bound": UPPER_BOUND}
    return Made(
        name=name,
        provenance={
            "scores_sha256": lines_sha256(scores),
            **bound,
            **(images.provenance if images else {}),
        },
    )


def lines_sha256(paths: Iterable[Path]) -> str:
    """Return the SHA-256 (hex) of files' lines, in whatever order and files they stand."""
    lines = (line for path in paths for line in read_lines(path, max_bytes=_MAX_LINE_BYTES))
    return sha256_of(b"\n".join(sorted(line.content.strip() for line in lines)))


def finish(
    command: str,
    arguments: argparse.Namespace,
    result: BenchmarkResult,
    table: str,
    wrote: Iterable[Path],
    unscored: Iterable[str] = (),
) -> int:
    """Tell what a command that scores one run has found.

    Args:
        command: Its name.
        arguments: With the options of `add_score_options`.
        result: Of the run.
        table: It, for a terminal.
        wrote: Files.
        unscored: Lines on what has no score.

    Returns:
        As `exit_code`.

    Raises:
        ValueError: As `exit_code`.
    """
    print(table)
    console().figures(result.figures())
    for line in unscored:
        print(line)
    print(f"wrote {' and '.join(map(str, wrote))}")
    return exit_code(command, [result], allow_unscored=arguments.allow_unscored)


def unscored_lines(unscored: Counter[str], what: str = "") -> list[str]:
    """Say what has no score, a line for each reason, the most frequent first."""
    return [f"unscored: {number}{what}, {why}" for why, number in unscored.most_common()]


def exit_code(command: str, results: Iterable[BenchmarkResult], *, allow_unscored: bool) -> int:
    """Return 0, or 1 after saying on stderr that samples are unscored.

    Raises:
        ValueError: a result has no score at all; nothing was measured, whatever is allowed.
    """
    overall = [result.overall for result in results]
    if not all(estimate.n for estimate in overall):
        raise ValueError("not one sample has a score; the lines above say why")
    problem = unscored_message(command, overall)
    if problem is None or allow_unscored:
        return exit_codes.OK
    print(problem, file=sys.stderr)
    return exit_codes.FAILED
