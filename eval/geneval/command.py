"""The command line of `staged eval geneval`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.downloads import sha256_of
from eval.generation.provenance import made
from eval.geneval.detections import Line, read_lines, write_verdicts
from eval.geneval.prompts import load_prompts
from eval.geneval.summary import ANY_CORRECT, IMAGES_PER_PROMPT, is_complete, summarise
from eval.results import OVERALL, Result, unscored_message
from eval.statistics import METHOD, Estimate
from eval.tables import plain, show, show_interval

EXIT_OK, EXIT_UNSCORED = 0, 1


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
    images = made(arguments.generated, paths) if arguments.generated else None
    scored = [(line, line.verdict()) for path in paths for line in read_lines(path)]
    write_verdicts(scored, arguments.out)
    result = summarise(
        [(line.prompt, verdict) for line, verdict in scored],
        expected=prompt_file.prompts if prompt_file else (),
        images_per_prompt=arguments.images_per_prompt,
        variant={
            "prompts": prompt_file.variant if prompt_file else "as detected",
            "detector": _detector([line for line, _ in scored]),
        },
        run=arguments.name or (images.name if images else paths[0].stem),
        provenance={
            "detections_sha256": _fingerprint(paths),
            **(images.provenance if images else {}),
        },
    )
    if arguments.result:
        result.write(arguments.result)
    print(render(result))
    print(f"wrote {arguments.out}" + (f" and {arguments.result}" if arguments.result else ""))
    problem = unscored_message("staged eval geneval", [result.overall])
    if problem is None or arguments.allow_unscored:
        return EXIT_OK
    print(problem, file=sys.stderr)
    return EXIT_UNSCORED


def render(result: Result) -> str:
    """Write the table of a result for a terminal."""
    rows = [_row(name, result.estimates[name]) for name in result.samples]
    if is_complete(result):
        rows.append(_row("overall (mean of the six)", result.overall))
    else:
        rows.append(_row(f"mean of these {len(result.samples)} tasks", result.estimates[OVERALL]))
    rows += [_row(name, estimate) for name, estimate in result.also.items()]
    table = plain(["task", "accuracy", "interval", "n", "prompts", "unscored"], rows)
    note = "" if is_complete(result) else "\nNot GenEval's overall score: tasks are missing."
    return f"{table}\nintervals: {METHOD}; n counts images, for `{ANY_CORRECT}` prompts{note}"


def _row(name: str, estimate: Estimate) -> list[str]:
    return [
        name,
        show(estimate.value),
        show_interval(estimate),
        str(estimate.n),
        str(estimate.num_clusters),
        str(estimate.unscored),
    ]


def _detector(lines: Sequence[Line]) -> str:
    """Return the one detector that all lines are of."""
    names = {str(line.record.get("detector", "unknown")) for line in lines}
    if len(names) > 1:
        raise ValueError(
            f"detections of {len(names)} detectors: {'; '.join(sorted(names))}. Their scores "
            "differ, so score each alone"
        )
    return next(iter(names), "unknown")


def _fingerprint(paths: Sequence[Path]) -> str:
    # Sorted, so that shuffled lines, or lines spread over files, have the same one.
    lines = (line.strip() for path in paths for line in path.read_bytes().splitlines())
    return sha256_of(b"\n".join(sorted(line for line in lines if line)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="staged eval geneval",
        description="Score detections by GenEval's rules.",
        epilog="example: staged eval geneval --detections found.jsonl --out scored.jsonl "
        "--prompts evaluation_metadata.jsonl --result geneval.json\n\n"
        'A line of FILE is one image: {"metadata": the prompt\'s record, "detections": [{"label", '
        '"box":\n[x1, y1, x2, y2], "score", "color"}]}; detections are null where detection '
        "failed.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--detections",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="JSON lines, an image each, such as `staged eval detect` writes",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="the same lines with `correct` and `reason`"
    )
    parser.add_argument("--result", type=Path, help="result file for `staged eval compare`")
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="prompt file, folder of images, or `short` or `long`, which are fetched; with it, "
        "images that were not detected in are unscored",
    )
    parser.add_argument(
        "--images-per-prompt",
        type=_positive,
        default=IMAGES_PER_PROMPT,
        metavar="N",
        help="expected with --prompts (default: %(default)s)",
    )
    parser.add_argument(
        "--generated",
        type=Path,
        metavar="FOLDER",
        help="of `staged eval generate`: the result says how its images were made, after a check "
        "that they are the ones that were looked at",
    )
    parser.add_argument(
        "--name", help="of the run, for tables (default: the generator's, or the file's)"
    )
    parser.add_argument(
        "--allow-unscored", action="store_true", help="succeed although samples have no score"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 1")
    return int(text)
