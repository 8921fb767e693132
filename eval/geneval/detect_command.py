"""The command line of `staged eval detect`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from eval.geneval.detect_folder import detect_in_folder
from eval.geneval.detector import CLIP, KINDS, MASK2FORMER, open_detector
from eval.geneval.selftest import GOLDEN_FILE, check, miniature_golden, read_golden
from staged.command_line import (
    Parser,
    UsageError,
    add_device,
    add_out_file,
    console,
    exit_codes,
)
from staged.jobs.rank import add_options as add_rank_options
from staged.jobs.rank import rank_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run `staged eval detect`.

    Args:
        argv: Arguments after `staged eval detect`; the process's own when None.

    Raises:
        ValueError: the detector fails its self-test, or a file is not as it must be.
        OSError: a file cannot be read or written.
    """
    arguments = _parser().parse_args(argv)
    rank = rank_of(arguments.rank, arguments.world_size)
    miniature = arguments.detector == "miniature"
    if arguments.golden is None and not (miniature or arguments.no_self_test):
        raise UsageError(
            f"--golden is missing: name a folder with {GOLDEN_FILE}, images whose verdicts are "
            "known, so that a broken detector is noticed; --no-self-test goes without, and the "
            "results say so"
        )
    detector = open_detector(
        arguments.detector,
        weights=arguments.weights,
        clip=arguments.clip,
        device=arguments.device,
    )
    if arguments.no_self_test:
        detector = replace(detector, name=f"{detector.name}, not self-tested")
    else:
        golden = read_golden(arguments.golden) if arguments.golden else miniature_golden()
        check(detector, golden)
        print(f"self-test passed: {len(golden)} golden images")
    counts = detect_in_folder(arguments.images, arguments.out, detector, rank=rank)
    words = f"looked at {counts.new} images, {counts.kept} were there, {counts.failed} failed"
    print(rank.label(words))
    if counts.without_images:
        print(f"{counts.without_images} prompts have no image; `staged eval geneval` misses them")
    console().figures({"new": counts.new, "kept": counts.kept, "failed": counts.failed})
    if counts.detected is None:
        print("detections of other processes are still missing")
        return exit_codes.OK
    print(f"wrote {arguments.out}; score it with `staged eval geneval --detections`")
    if not counts.detected:
        raise ValueError(f"not one image could be looked at; {arguments.out} says why")
    return exit_codes.OK


def _parser() -> Parser:
    parser = Parser(
        prog="staged eval detect",
        description="Detect objects and colours in a folder of images, for GenEval.",
        figures=True,
        epilog="example: staged eval detect images --detector mask2former --weights "
        "detectors/mmdet --golden golden --out found.jsonl\n\n"
        "FOLDER is as the reference writes it: NNNNN/metadata.jsonl and NNNNN/samples/*.png, or\n"
        "JPEG and WebP, in `samples` or beside the record, numbers for names.\n"
        "The same command goes on where it was interrupted. Several processes, by torchrun or\n"
        "with --rank and --world-size, share the work; the last one that is ready writes --out.",
    )
    add = parser.add_argument
    add("images", type=Path, metavar="FOLDER", help="images by prompt")
    add_out_file(parser, words="JSON lines, an image each")
    add("--detector", choices=KINDS, required=True, help="who looks")
    add(
        "--weights",
        default=MASK2FORMER,
        help="Mask2Former: folder or Hub id; `staged eval convert-detector` makes one of the "
        "reference's checkpoint (default: %(default)s, a variant of the metric)",
    )
    add("--clip", default=CLIP, help="folder or Hub id (default: %(default)s)")
    add_device(parser)
    add("--golden", type=Path, metavar="FOLDER", help=f"images for the self-test: {GOLDEN_FILE}")
    add("--no-self-test", action="store_true", help="trust the detector")
    add_rank_options(parser)
    return parser
