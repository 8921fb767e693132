"""The command line of `staged eval rewards`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.budget import stopped_by_budget
from eval.compare import compare
from eval.pictures import Picture, read_pictures
from eval.results import OVERALL, BenchmarkResult
from eval.rewards.kinds import KINDS, VQA_QUESTION, WEIGHTS, weights_of
from eval.score_options import add_score_options, exit_code, origin_of
from eval.statistics import METHOD
from eval.tables import counted_table, difference_table
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
    lines = _lines(arguments)
    results: list[BenchmarkResult] = []
    wrote = []
    for name in names:
        for line, pictures in lines.items():
            out = arguments.out / line
            result = _score(name, pictures, weights, arguments, out)
            if result is None:
                print(f"{out / name}: scores of other processes are still missing")
            else:
                results.append(result)
                wrote.append(str(out / f"{name}.json"))
    if not results:
        return exit_codes.OK
    print(render(results, several=len(lines) > 1))
    figures: dict[str, Any] = {}
    for result in results:
        of_line = figures.setdefault(result.run, {}) if len(lines) > 1 else figures
        of_line[result.benchmark] = result.figures()
    console().figures(figures)
    for result in results:
        label = f"{result.run}, {result.benchmark}" if len(lines) > 1 else result.benchmark
        for reason, number in result.provenance["unscored"].items():
            print(f"{label}: {number} images unscored, {reason}")
        if number := result.provenance["truncated"]:
            print(f"{label}: the prompts of {number} images were read in part only")
    print(f"wrote {', '.join(wrote)}")
    return exit_code("staged eval rewards", results, allow_unscored=arguments.allow_unscored)


def render(results: Sequence[BenchmarkResult], *, several: bool = False) -> str:
    """Write the table of all rewards for a terminal.

    Args:
        results: By reward, and within one in the order of the lines.
        several: Whether there are several lines; each is then compared with the first.
    """
    means = [
        (f"{one.benchmark}, {one.run}" if several else one.benchmark, one.overall)
        for one in results
    ]
    parts = [counted_table("reward", "mean", means)]
    first = {one.benchmark: one for one in reversed(results)}
    gains = [
        (f"{one.benchmark}, {one.run} over {base.run}", compare(one, base).estimates[OVERALL])
        for one in results
        if (base := first[one.benchmark]) is not one
    ]
    if gains:
        parts.append(difference_table(gains, "mean"))
    parts += dict.fromkeys(f"{one.benchmark}: {one.variant['scorer']}" for one in results)
    return "\n".join([*parts, f"intervals: {METHOD}"])


def _score(
    name: str,
    pictures: Sequence[Picture],
    weights: Mapping[str, str | None],
    arguments: argparse.Namespace,
    folder: Path,
) -> BenchmarkResult | None:
    # Heavy imports wait until there is something to score.
    from eval.rewards.scoring import score_pictures, summarise

    rank = rank_of(arguments.rank, arguments.world_size)
    out = folder / f"{name}.jsonl"
    with _open(name, weights, arguments, out, rank) as scorer:
        scored = score_pictures(pictures, scorer, out, rank=rank)
    if scored is None:
        return None
    origin = origin_of(arguments, [out], default_name=folder.name, judge=scorer.name)
    result = origin.told_in(summarise(scored, scorer))
    result.write(folder / f"{name}.json")
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


def _lines(arguments: argparse.Namespace) -> dict[str, list[Picture]]:
    """Pictures of each source, by its name; that of a single one is empty.

    Raises:
        ValueError: two have one name, or other prompts than the first.
    """
    if (arguments.wise is None) != (arguments.prompts is None):
        raise UsageError("--wise VERSION and --prompts FOLDER belong together: give both or none")
    texts = None
    if arguments.wise is not None:
        prompts = load_prompts(arguments.prompts, VERSIONS[arguments.wise])
        texts = {prompt.prompt_id: prompt.text for prompt in prompts}
    sources: list[Path] = arguments.images
    if len(sources) == 1:
        return {"": read_pictures(sources[0], texts)}
    if arguments.name or arguments.generated:
        raise UsageError("--name and --generated are of one run, and --images names several")
    lines: dict[str, list[Picture]] = {}
    for source in sources:
        name = source.stem if source.is_file() else source.name
        if name in lines:
            raise ValueError(f"--images {source}: another one is called {name} too; rename one")
        lines[name] = read_pictures(source, texts)
        asked = [{one.prompt for one in lines[line]} for line in (next(iter(lines)), name)]
        if asked[0] != asked[1]:
            raise ValueError(
                f"--images {source} is of other prompts than {sources[0]}; score them apart"
            )
    return lines


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
        "compare` takes, and REWARD.jsonl, a line for each image; of several --images they lie in\n"
        "a folder each. The same command goes on where it was interrupted.\n\n" + server_help(),
    )
    add = parser.add_argument
    add(
        "--images",
        type=Path,
        nargs="+",
        required=True,
        help="what is scored; of several with the same prompts, each is compared with the first",
    )
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
