"""`staged idea2img-study`: let people choose between pictures without knowing whose they are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from eval.report.pairs import differences
from eval.study.items import LINES, make_study, read_key, write_key
from eval.study.page import study_page
from eval.study.summary import PAIRS, build
from eval.study.votes import count as count_votes
from eval.study.votes import read_votes
from eval.tables import counted_table, difference_table
from staged.command_line import (
    Parser,
    Part,
    add_out_file,
    add_out_folder,
    add_parts,
    add_seed,
    console,
    count,
    exit_codes,
    run_part,
)
from staged.ideas.exploration import Exploration
from staged.ideas.folder import EXPLORATION, load_exploration
from staged.jobs.files import write_whole

_PROG: Final = "staged idea2img-study"
_EXAMPLE: Final = """examples:
  staged idea2img-study page out/ideas --out out/study.html
  staged idea2img-study votes votes-ann.json votes-ben.json --key out/study.key.json \\
      --out out/study

Give study.html to people, and keep study.key.json: it says whose picture is whose. Each of them
saves a file of votes at the end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0.

    Raises:
        ValueError: There is nothing to show or to count, or a file is not what it should be.
        OSError: A file cannot be read or written.
    """
    parser = Parser(
        prog=_PROG,
        description="Make a page on which people choose between a person's own prompt, the first "
        "round and the refined picture, side by side and unnamed, and count their votes.",
        epilog=_EXAMPLE,
        figures=True,
    )
    add_parts(parser, _PARTS, noun="part")
    return run_part(parser, argv)


def key_beside(page: Path) -> Path:
    """Where the key of a page lies."""
    return page.with_suffix(".key.json")


def _page(options: argparse.Namespace) -> int:
    found = [one for folder in options.folders for one in _explorations(folder, options.limit)]
    study = make_study(found, title=options.title, seed=options.seed)
    write_key(study, key_beside(options.out))
    write_whole(options.out, study_page(study).encode())
    left = len(found) - len(study.items)
    print(f"{options.out}: {len(study.items)} ideas" + (f"; {left} lack a picture" if left else ""))
    print(f"{key_beside(options.out)}: keep it, it says whose picture is whose")
    console().figures({"items": len(study.items), "left_out": left, "study": study.digest})
    return exit_codes.OK


def _votes(options: argparse.Namespace) -> int:
    key = read_key(options.key)
    votes = [read_votes(path, key) for path in options.votes]
    results = count_votes(key, votes)
    options.out.mkdir(parents=True, exist_ok=True)
    for line, result in results.items():
        result.write(options.out / f"{line}.json")
    shares = [(LINES[line], result.overall) for line, result in results.items()]
    print(counted_table("preferred", "share", shares))
    gains = differences(results, PAIRS).items()
    print(difference_table((f"{LINES[one]} over {LINES[other]}", it) for (one, other), it in gains))
    page = options.out / "report.html"
    write_whole(page, build(key, results, votes).html().encode())
    print(f"wrote {page}")
    console().figures({line: result.figures() for line, result in results.items()})
    return exit_codes.OK


def _explorations(folder: Path, limit: int) -> list[Exploration]:
    """Read what `staged idea2img` left in a folder.

    Raises:
        ValueError: Nothing, or something damaged.
    """
    paths = sorted(folder.glob(f"*/{EXPLORATION}"))[:limit]
    if not paths:
        raise ValueError(f"{folder} holds no explorations; `staged idea2img --out` makes such one")
    return [load_exploration(path) for path in paths]


def _page_options(parser: Parser) -> None:
    add = parser.add_argument
    add("folders", nargs="+", type=Path, help="results of `staged idea2img`")
    add_out_file(parser, words="page to write, with its key beside it")
    add_seed(parser, "of the order of ideas and pictures")
    add("--title", default="Which picture is best?", help="heading of the page")
    add("--limit", type=count, default=500, help="explorations of each folder")


def _votes_options(parser: Parser) -> None:
    add = parser.add_argument
    add("votes", nargs="+", type=Path, help="files that the page saved")
    add("--key", type=Path, required=True, help="that was written beside the page")
    add_out_folder(parser, words="folder for results and their page")


_PARTS = {
    "page": Part("make the page and its key", _page_options, _page, _EXAMPLE),
    "votes": Part("count votes, with intervals", _votes_options, _votes, _EXAMPLE),
}
