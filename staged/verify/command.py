"""The command line of `staged verify`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from staged.command_line import Parser, add_device, add_dtype, amount, console, exit_codes
from staged.verify.choices import GROUPS, TOLERANCE

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `staged verify`.

    Args:
        argv: Arguments after `staged verify`; the process's own when None.

    Returns:
        0 when everything agrees, 1 when something does not.

    Raises:
        ValueError: it cannot be compared: a file is missing or damaged.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    bagel = parser.parts()["bagel"]
    if (arguments.keys is None) != (arguments.config is None):
        bagel.error("--keys and --config go together")
    if (arguments.keys is None) == (arguments.directory is None):
        bagel.error("give a directory of reference numbers, or --keys and --config")
    # What follows needs torch; `--help` does not.
    if arguments.keys is not None:
        from staged.verify.keys import verify_keys

        agree = verify_keys(arguments.keys, arguments.config)
        console().figures({"agree": agree})
        return exit_codes.OK if agree else exit_codes.FAILED
    from staged.verify.groups import verify_golden

    figures = verify_golden(
        arguments.directory,
        groups=list(dict.fromkeys(arguments.group or GROUPS)),
        device=arguments.device,
        dtype=arguments.dtype,
        tolerance=arguments.tolerance,
    )
    console().figures(figures)
    return exit_codes.FAILED if figures["failed"] else exit_codes.OK


def _parser() -> Parser:
    parser = Parser(
        prog="staged verify",
        description="Compare this implementation with numbers of the reference one.",
        epilog="example: staged verify bagel tests/golden/bagel_tiny",
    )
    models = parser.add_subparsers(
        dest="model", required=True, metavar="MODEL", help="whose numbers"
    )
    bagel = models.add_parser(
        "bagel",
        figures=True,
        usage="%(prog)s [options] (DIRECTORY | --keys FILE --config DIRECTORY)",
        help="against a directory of reference tensors, or a list of names and shapes",
        epilog="example: staged verify bagel tests/golden/bagel_tiny --group vae",
    )
    add = bagel.add_argument
    add("directory", nargs="?", type=Path, help="folder with golden.json and its tensors")
    add("--group", action="append", choices=GROUPS, help="only this group")
    add_device(bagel)
    add_dtype(
        bagel,
        "of the weights",
        auto="float32, as the numbers were recorded",
        choices=("auto", "float32", "bfloat16", "float64"),
    )
    add(
        "--tolerance",
        type=_tolerance,
        default=TOLERANCE,
        help="largest error over the reference's largest magnitude",
    )
    add("--keys", help="JSON file with names and shapes, by `model` and `ae`")
    add("--config", help="folder with the published configuration files")
    return parser


def _tolerance(text: str) -> float:
    value = amount(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 0, below 1")
    return value
