"""The command line of `staged eval geneval`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.geneval.detections import DetectedImage, read_detections, write_verdicts
from eval.geneval.prompts import load_prompts
from eval.geneval.summary import ANY_CORRECT, IMAGES_PER_PROMPT, is_complete, summarise
from eval.results import BenchmarkResult, only_one
from eval.score_options import add_score_options, finish, origin_of
from eval.statistics import METHOD
from eval.tables import counted_table
from staged.command_line import Parser, add_out_file, count


def main(argv: Sequence[str] | None = None) -> int:
    """Run `staged eval geneval`.

    Args:
        argv: Arguments after `staged eval geneval`; the process's own when None.

    Returns:
        0 for success, 1 when samples are unscored and that was not allowed.

    Raises:
        ValueError: a file is not as it must be.
        OSError: a file cannot be read or written.
    """
    arguments = _parser().parse_args(argv)
    paths: list[Path] = arguments.detections
    prompt_file = load_prompts(arguments.prompts) if arguments.prompts else None
    scored = [(line, line.verdict()) for path in paths for line in read_detections(path)]
    if not scored:
        raise ValueError(
            f"{', '.join(map(str, paths))}: no detections; `staged eval detect` makes them"
        )
    detector = _detector([line for line, _ in scored])
    origin = origin_of(arguments, paths, default_name=paths[0].stem, judge=detector)
    write_verdicts(scored, arguments.out)
    summary = summarise(
        [(line.prompt, verdict) for line, verdict in scored],
        expected=prompt_file.prompts if prompt_file else (),
        images_per_prompt=arguments.images_per_prompt,
        variant={
            "prompts": prompt_file.variant if prompt_file else "as detected",
            "detector": detector,
        },
    )
    result = origin.told_in(summary)
    if arguments.result:
        result.write(arguments.result)
    wrote = filter(None, (arguments.out, arguments.result))
    return finish("staged eval geneval", arguments, result, render(result), wrote)


def render(result: BenchmarkResult) -> str:
    """Write the table of a result for a terminal."""
    tasks = [(name, result.estimates[name]) for name in result.samples]
    of_these = f"mean of these {len(tasks)} tasks"
    name = "overall (mean of the six)" if is_complete(result) else of_these
    found = [*tasks, (name, result.overall), *result.also.items()]
    table = counted_table("task", "accuracy", found)
    note = "" if is_complete(result) else "\nNot GenEval's overall score: tasks are missing."
    return f"{table}\nintervals: {METHOD}; n counts images, for `{ANY_CORRECT}` prompts{note}"


def _detector(lines: Sequence[DetectedImage]) -> str:
    """Return the one detector that all lines are of."""
    names = (str(line.record.get("detector", "unknown")) for line in lines)
    return only_one(names, "detections", "detectors") or "unknown"


def _parser() -> Parser:
    parser = Parser(
        prog="staged eval geneval",
        description="Score detections by GenEval's rules.",
        figures=True,
        epilog="example: staged eval geneval --detections found.jsonl --out scored.jsonl "
        "--prompts evaluation_metadata.jsonl --result geneval.json\n\n"
        'A line of FILE is one image: {"metadata": the prompt\'s record, "detections": [{"label", '
        '"box":\n[x1, y1, x2, y2], "score", "color"}]}; detections are null where detection '
        "failed.",
    )
    add = parser.add_argument
    add(
        "--detections",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="JSON lines, an image each, such as `staged eval detect` writes",
    )
    add_out_file(parser, words="the same lines with `correct` and `reason`")
    words = "result file for `staged eval compare`"
    add_out_file(parser, name="--result", required=False, words=words)
    add(
        "--prompts",
        metavar="FILE",
        help="prompt file, folder of images, or `short` or `long`, which are fetched; with it, "
        "images that were not detected in are unscored",
    )
    add(
        "--images-per-prompt",
        type=count,
        default=IMAGES_PER_PROMPT,
        metavar="N",
        help="expected with --prompts (default: %(default)s)",
    )
    add_score_options(parser, default_name="the file's")
    return parser
