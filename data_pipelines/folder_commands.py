"""The commands of `staged data` that look at data sets, or make one of others."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from data_pipelines.job_command import print_reasons
from staged.command_line import (
    Parser,
    Part,
    add_out_file,
    add_out_folder,
    console,
    count,
    exit_codes,
    outputs,
    percent,
)
from staged.jobs.results import Status
from staged.shards import damage, read_index, read_manifest, validate
from staged.shards.checks import merge
from staged.shards.writer import DEFAULT_MAX_SAMPLES


def _folder_options(parser: Parser, words: str = "of the data set") -> None:
    parser.add_argument("folder", type=Path, help=words)


def _cost_options(parser: Parser) -> None:
    _folder_options(parser, "of the job")
    words = "accepted samples to reckon the cost of"
    parser.add_argument("--samples", type=count, metavar="N", help=words)


def _preview_options(parser: Parser) -> None:
    _folder_options(parser)
    add_out_file(parser, required=False, words="page to write; FOLDER/preview.html without it")
    add = parser.add_argument
    add("--limit", type=count, default=24, help="most trajectories of each kind")
    words = "of each kind; what is beyond has further pages"
    add("--per-page", type=count, default=25, help=words)
    words = "those that ended so; may be repeated"
    add("--only", action="append", choices=get_args(Status), help=words)
    add("--reason", default="", metavar="WORDS", help="those left out for this")
    add("--prompt", default="", metavar="WORDS", help="those with this in the prompt")
    add("--task", default="", help="those of this task")
    words = "those with an edit that moved the whole picture by so much of its side or more"
    add("--moved", type=percent, default=0.0, metavar="PERCENT", help=words)


def _merge_options(parser: Parser) -> None:
    add = parser.add_argument
    add("folders", type=Path, nargs="+", metavar="FOLDER", help="of the data sets")
    add_out_folder(parser, words="folder of the new data set")
    add("--title", help="its name; default: those of the data sets")
    words = "leave keys as they are; equal ones are refused"
    add("--keep-keys", action="store_true", help=words)
    _add_shard_size(parser)


def _reshard_options(parser: Parser) -> None:
    _folder_options(parser)
    add_out_folder(parser, words="folder of the new data set")
    _add_shard_size(parser)


def _pairs_options(parser: Parser) -> None:
    _folder_options(parser)
    add_out_folder(parser, words="folder of the pairs")


def _decisions_options(parser: Parser) -> None:
    from data_pipelines.decisions import KINDS

    _folder_options(parser)
    add_out_folder(parser, words="folder of the decisions")
    words = "those that end with such a step; may be repeated (default: all)"
    parser.add_argument("--kind", action="append", choices=KINDS, help=words)


def _add_shard_size(parser: Parser) -> None:
    parser.add_argument(
        "--samples-per-shard",
        type=count,
        default=DEFAULT_MAX_SAMPLES,
        metavar="N",
        help="most samples of a shard",
    )


def _validate(arguments: argparse.Namespace) -> int:
    found = validate(arguments.folder)
    for problem in found.problems:
        print(f"damaged: {problem}", file=sys.stderr)
    print(f"{found.samples} samples, {len(found.problems)} problems")
    console().figures({"samples": found.samples, "problems": list(found.problems)})
    return exit_codes.OK if found.ok else exit_codes.FAILED


def _stats(arguments: argparse.Namespace) -> int:
    manifest = read_manifest(arguments.folder)
    for name, value in manifest.stats.items():
        if not isinstance(value, Mapping):
            print(f"{name}: {value}")
            continue
        for key, number in value.items():
            shown = number
            if isinstance(number, Mapping):
                shown = ", ".join(f"{inner} {n}" for inner, n in number.items())
            print(f"{name}, {key}: {shown}")
    print_reasons(manifest.acceptance)
    for unit, amount in manifest.cost.items():
        print(f"cost of everything, {unit}: {amount:g}")
    problems = damage(arguments.folder)
    console().figures(
        {
            "stats": manifest.stats,
            "acceptance": manifest.acceptance,
            "cost": manifest.cost,
            "problems": problems,
        }
    )
    for problem in problems:
        print(f"damaged: {problem}", file=sys.stderr)
    return exit_codes.FAILED if problems else exit_codes.OK


def _cost(arguments: argparse.Namespace) -> int:
    from data_pipelines.spending import read_spending

    spent = read_spending(arguments.folder)
    print(f"{spent.accepted} samples accepted of {spent.ended} ended")
    for purpose, number in spent.calls.items():
        usd = spent.usd[purpose]
        each = f", {number / spent.accepted:.2f} per accepted sample" if spent.accepted else ""
        print(f"  {purpose}: {number} calls{each}{f', ${usd:.2f}' if usd else ''}")
    if spent.accepted and spent.usd_in_all:
        each = f", ${spent.usd_in_all / spent.accepted:.4f} per accepted sample"
        print(f"${spent.usd_in_all:.2f}{each}")
    figures: dict[str, Any] = {
        "accepted": spent.accepted,
        "ended": spent.ended,
        "calls": dict(spent.calls),
        "usd": dict(spent.usd),
    }
    if arguments.samples is not None:
        wanted = spent.for_samples(arguments.samples)
        if wanted is None:
            print("nothing was accepted yet, so there is nothing to reckon from", file=sys.stderr)
            return exit_codes.FAILED
        calls, usd = wanted
        said = ", ".join(f"{number:.0f} {purpose}" for purpose, number in calls.items())
        print(f"{arguments.samples} samples would take about ${usd:.2f}: {said}")
        figures |= {"samples": arguments.samples, "samples_usd": usd, "samples_calls": calls}
    console().figures(figures)
    return exit_codes.OK


def _preview(arguments: argparse.Namespace) -> int:
    from data_pipelines.preview import Filter, write_preview

    path = arguments.out or outputs.file(arguments.folder / "preview.html")
    wanted = Filter(
        ends=tuple(dict.fromkeys(arguments.only or get_args(Status))),
        reason=arguments.reason,
        prompt=arguments.prompt,
        task=arguments.task,
        moved=arguments.moved,
    )
    size = write_preview(
        arguments.folder,
        path,
        number=arguments.limit,
        per_page=arguments.per_page,
        wanted=wanted,
    )
    pages = f" on {size.pages} pages" if size.pages > 1 else ""
    print(f"wrote {path} with {size.trajectories} trajectories{pages}")
    return exit_codes.OK


def _merge(arguments: argparse.Namespace) -> int:
    folders = arguments.folders
    title = arguments.title or " + ".join(read_manifest(folder).title for folder in folders)
    prefixes = None if arguments.keep_keys else [f"{number}-" for number in range(len(folders))]
    return _written(arguments, folders, title, prefixes)


def _reshard(arguments: argparse.Namespace) -> int:
    title = read_manifest(arguments.folder).title
    return _written(arguments, [arguments.folder], title, None)


def _written(
    arguments: argparse.Namespace, folders: list[Path], title: str, prefixes: list[str] | None
) -> int:
    if not any(entry.samples for folder in folders for entry in read_index(folder)):
        raise ValueError(f"no samples: {', '.join(map(str, folders))} hold nothing to write")
    entries = merge(
        folders,
        arguments.out,
        title=title,
        prefixes=prefixes,
        max_samples=arguments.samples_per_shard,
    )
    samples = sum(entry.samples for entry in entries)
    print(f"wrote {arguments.out}: {samples} samples in {len(entries)} shards")
    console().figures({"out": str(arguments.out), "samples": samples, "shards": len(entries)})
    return exit_codes.OK


def _pairs(arguments: argparse.Namespace) -> int:
    from data_pipelines.pairs import write_pairs

    number = write_pairs(arguments.folder, arguments.out)
    print(f"wrote {arguments.out}: {number} pairs")
    console().figures({"out": str(arguments.out), "pairs": number})
    return exit_codes.OK


def _decisions(arguments: argparse.Namespace) -> int:
    from data_pipelines.decisions import KINDS, write_decisions

    number = write_decisions(arguments.folder, arguments.out, set(arguments.kind or KINDS))
    print(f"wrote {arguments.out}: {number} decisions")
    console().figures({"out": str(arguments.out), "decisions": number})
    return exit_codes.OK


FOLDER_COMMANDS = {
    "validate": Part(
        help="check every byte of a data set",
        epilog="example: staged data validate data/shapes",
        options=_folder_options,
        run=_validate,
    ),
    "stats": Part(
        help="count samples, steps, verdicts, reasons and cost",
        epilog="example: staged data stats data/shapes",
        options=_folder_options,
        run=_stats,
    ),
    "cost": Part(
        help="what a job has cost so far, and what more samples would",
        description="Add up what a job has paid for, finished or not. To price a job, let it make "
        "some samples first (budget.images=200), and ask for the number that you want.",
        epilog="example: staged data cost data/kontext --samples 32000",
        options=_cost_options,
        run=_cost,
    ),
    "preview": Part(
        help="show trajectories on one web page",
        description="Show trajectories of a data set, and what its job left out with the reasons. "
        "Everything is looked through for those that are wanted.",
        epilog="examples:\n"
        "  staged data preview data/shapes --out preview.html --limit 40\n"
        "  staged data preview data/shapes --only rejected --reason 'not as planned'\n"
        "  staged data preview data/kontext --moved 0.5",
        options=_preview_options,
        run=_preview,
        figures=False,
    ),
    "merge": Part(
        help="several data sets to one",
        description="Write several data sets as one, in the order given. Keys get the number of "
        "their data set before them, so that none collide.",
        epilog="example: staged data merge data/plans data/critiques --out data/all",
        options=_merge_options,
        run=_merge,
    ),
    "reshard": Part(
        help="the same samples in shards of another size",
        epilog="example: staged data reshard data/shapes --samples-per-shard 200 "
        "--out data/shapes-200",
        options=_reshard_options,
        run=_reshard,
    ),
    "decisions": Part(
        help="a sample for each step that is learned",
        description="Cut trajectories up: each supervised step ends a sample of its own, after all "
        "that led to it, and is what alone is supervised there. Skills are so learned apart, or "
        "some more than others; whole trajectories then teach them together.",
        epilog="example: staged data decisions data/critique --kind inspection --out data/looks",
        options=_decisions_options,
        run=_decisions,
    ),
    "pairs": Part(
        help="preference pairs of refused sketches and those that mended them",
        description="Of every sketch that was refused and mended, write two samples that differ in "
        "their last sketch alone: the better one (KEY-1) and the refused one (KEY-0).",
        epilog="example: staged data pairs data/critique --out data/pairs",
        options=_pairs_options,
        run=_pairs,
    ),
}
"""The commands, by name."""
