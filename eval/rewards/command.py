"""The command line of `staged eval rewards`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eval.budget import stopped_by_budget
from eval.pictures import Picture, read_pictures
from eval.results import BenchmarkResult
from eval.rewards.kinds import KINDS, VQA_QUESTION, WEIGHTS, weights_of
from eval.score_options import add_score_options, exit_code, origin_of
from eval.statistics import METHOD
from eval.tables import COUNTED, counted_row, plain
from eval.vqa.options import add_options, open_answerer, server_help
from eval.wise.prompts import load_prompts
from eval.wise.versions import VERSIONS
from staged.command_line import Parser, UsageError, add_device, add_out_folder, console, exit_codes
from staged.jobs.rank import Rank, rank_of
from staged.jobs.rank import add_options as add_rank_options
from staged.settings.kinds import nearest

if TYPE_CHECKING:
    from eval.rewards.scorers import Scorer


@stopped_by_budget("raise --budget-usd")
def main(argv: Sequence[str] | None = None) -> int:
    """Run `staged eval rewards`.

    Args:
        argv: Arguments after `staged eval rewards`; the process's own when None.

    Returns:
        0 for success, 1 when samples are unscored and that was not allowed, 3 when the budget
        stopped it.

    Raises:
        ValueError: images, weights or options are not as they must be.
        OSError: a file cannot be read or written.
    """
    arguments = _parser().parse_args(argv)
    names = _names(arguments.reward)
    weights = _weights(arguments.weights)
    if "vqascore" not in names and (arguments.overrides or arguments.through == "server"):
        what = arguments.overrides[0] if arguments.overrides else "--through server"
        raise ValueError(f"{what!r} is for vqascore, which is not among --reward {','.join(names)}")
    pictures = _pictures(arguments)
    results = []
    for name in names:
        result = _score(name, pictures, weights, arguments)
        if result is None:
            print(f"{name}: scores of other processes are still missing")
        else:
            results.append(result)
    if not results:
        return exit_codes.OK
    print(render(results))
    console().figures({result.benchmark: result.figures() for result in results})
    for result in results:
        for reason, number in result.provenance["unscored"].items():
            print(f"{result.benchmark}: {number} images unscored, {reason}")
        if result.provenance["truncated"]:
            number = result.provenance["truncated"]
            print(f"{result.benchmark}: the prompts of {number} images were read in part only")
    print(f"wrote {', '.join(str(arguments.out / f'{r.benchmark}.json') for r in results)}")
    return exit_code("staged eval rewards", results, allow_unscored=arguments.allow_unscored)


def render(results: Sequence[BenchmarkResult]) -> str:
    """Write the table of all rewards for a terminal."""
    rows = [counted_row(result.benchmark, result.overall) for result in results]
    table = plain(["reward", "mean", *COUNTED], rows)
    scorers = "\n".join(f"{result.benchmark}: {result.variant['scorer']}" for result in results)
    return f"{table}\n{scorers}\nintervals: {METHOD}"


def _score(
    name: str,
    pictures: Sequence[Picture],
    weights: Mapping[str, str | None],
    arguments: argparse.Namespace,
) -> BenchmarkResult | None:
    # Heavy imports wait until there is something to score.
    from eval.rewards.scoring import score_pictures, summarise

    rank = rank_of(arguments.rank, arguments.world_size)
    out = arguments.out / f"{name}.jsonl"
    with _open(name, weights, arguments, out, rank) as scorer:
        scored = score_pictures(pictures, scorer, out, rank=rank)
    if scored is None:
        return None
    origin = origin_of(arguments, [out], default_name=arguments.out.name, judge=scorer.name)
    result = origin.told_in(summarise(scored, scorer))
    result.write(arguments.out / f"{name}.json")
    return result


@contextmanager
def _open(
    name: str,
    weights: Mapping[str, str | None],
    arguments: argparse.Namespace,
    out: Path,
    rank: Rank,
) -> Iterator[Scorer]:
    if name != "vqascore":
        from eval.rewards.opening import open_scorer

        yield open_scorer(name, weights, device=arguments.device)
        return
    from eval.rewards.scorers import VqaScorer

    with open_answerer(
        arguments, weights=weights_of(name, weights), purpose=name, out=out, rank=rank
    ) as answerer:
        yield VqaScorer(answerer, arguments.question)


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in KINDS:
            raise ValueError(f"there is no reward {name!r}{nearest(name, list(KINDS))}")
    return names


def _weights(pairs: Sequence[str]) -> dict[str, str | None]:
    weights: dict[str, str | None] = {}
    for pair in pairs:
        name, equals, source = pair.partition("=")
        if name not in WEIGHTS or not (equals and source):
            raise UsageError(f"--weights {pair}: give NAME=WHERE; names are {', '.join(WEIGHTS)}")
        weights[name] = source
    return weights


def _pictures(arguments: argparse.Namespace) -> list[Picture]:
    if (arguments.wise is None) != (arguments.prompts is None):
        raise UsageError("--wise VERSION and --prompts FOLDER belong together: give both or none")
    if arguments.wise is None:
        return read_pictures(arguments.images)
    prompts = load_prompts(arguments.prompts, VERSIONS[arguments.wise])
    return read_pictures(arguments.images, {prompt.prompt_id: prompt.text for prompt in prompts})


def _parser() -> Parser:
    width = max(map(len, KINDS))
    kinds = "\n".join(f"  {name:{width}}  {kind.help}" for name, kind in KINDS.items())
    parser = Parser(
        prog="staged eval rewards",
        description="Score images with networks that learnt what people prefer.",
        figures=True,
        epilog=f"rewards:\n{kinds}\n\n"
        "example: staged eval rewards --images images --reward clipscore,pickscore --out rewards\n"
        "         staged eval rewards --images wise --wise verified --prompts data --out rewards\n"
        "             --reward hps,aesthetic --weights hps=w/hps --weights aesthetic=w/head\n\n"
        "IMAGES is a folder NNNNN/metadata.jsonl with NNNNN/samples/*.png (or .jpg, .webp), with\n"
        '--wise one of {prompt_id}.png, a file of lines {"image": PATH, "prompt": TEXT}, or a\n'
        "JSON file {TEXT: PATH}. Each reward leaves REWARD.json, a result that `staged eval\n"
        "compare` takes, and REWARD.jsonl, a line for each image. The same command goes on where\n"
        "it was interrupted.\n\n" + server_help(),
    )
    add = parser.add_argument
    add("--images", type=Path, required=True, help="what is scored")
    add("--reward", required=True, metavar="NAME,...", help=f"of {', '.join(KINDS)}")
    add_out_folder(parser, words="for results")
    add("--wise", choices=list(VERSIONS), help="the images are those of WISE")
    add("--prompts", type=Path, help="with --wise: folder of its JSON files")
    add(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=WHERE",
        help="folder or Hub id, as often as need be; `clip` is for clipscore and aesthetic "
        f"(defaults: {', '.join(f'{k}={v}' for k, v in WEIGHTS.items() if v)})",
    )
    add_device(parser)
    add("--question", default=VQA_QUESTION, help="vqascore: what is asked (default: %(default)s)")
    add_score_options(parser, default_name="the folder's")
    add_rank_options(parser)
    add_options(parser)
    return parser
