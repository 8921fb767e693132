"""The command line of `staged eval report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.report.page import build
from eval.report.runs import open_runs
from staged.command_line import Parser, UsageError, add_out_file

EXIT_OK = 0
_EXAMPLE = """examples:
  staged eval report out/base out/staged --names base staged --out report.html
  staged eval report geneval.json --samples found.jsonl --images out/images --out report.html
  staged eval report wise.json --samples judged.jsonl --images out/wise --out report.html

With several results, --samples, --images and --names take one value for each, in order."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `staged eval report`.

    Args:
        argv: Arguments after `staged eval report`; the process's own when None.

    Raises:
        ValueError: a file is not as it must be, or the results cannot be compared.
        OSError: a file cannot be read or written.
    """
    arguments = _parser().parse_args(argv)
    if arguments.per_kind < 1 or arguments.trajectories < 0:
        raise UsageError(
            f"--per-kind {arguments.per_kind}, --trajectories {arguments.trajectories}; give at "
            "least 1 and 0"
        )
    runs = open_runs(
        arguments.results,
        names=arguments.names,
        lines=arguments.samples,
        image_folders=arguments.images,
    )
    report = build(
        runs,
        title=arguments.title,
        per_kind=arguments.per_kind,
        num_trajectories=arguments.trajectories,
        across_variants=arguments.across_variants,
    )
    path = report.write(arguments.out)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return EXIT_OK


def _parser() -> Parser:
    parser = Parser(
        prog="staged eval report",
        description="Show results of one benchmark as one web page that needs no network: scores, "
        "differences, how the steps went, and failures by reason.",
        epilog=_EXAMPLE,
    )
    add = parser.add_argument
    add(
        "results",
        type=Path,
        nargs="+",
        metavar="RESULT",
        help="result file, or folder of `staged eval miniature`; at most 6, the others compared "
        "with the first",
    )
    add_out_file(parser, words="page to write (.html)")
    add("--title", default="", help="heading of the page")
    add("--names", nargs="+", default=[], metavar="NAME", help="of the runs, for the page")
    add(
        "--samples",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="what each image got (JSON lines): detections of GenEval, judgements of WISE; that of "
        "the miniature is found",
    )
    add("--images", type=Path, nargs="+", default=[], metavar="FOLDER", help="of those images")
    add(
        "--per-kind",
        type=int,
        default=12,
        metavar="N",
        help="most pictures of a kind of failure (default: %(default)s)",
    )
    add(
        "--trajectories",
        type=int,
        default=6,
        metavar="N",
        help="most samples of a run to show step by step (default: %(default)s)",
    )
    add(
        "--across-variants",
        action="store_true",
        help="compare although prompts, judge, weighting or the like differ",
    )
    return parser
