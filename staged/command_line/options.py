"""Options that several commands have: one name, one meaning, one range."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any, Final

from staged.command_line.outputs import out_file, out_folder

_AUTO: Final = "auto"
MAX_SEED: Final = 2**62
"""Room above it for what a command adds to a seed; a trajectory keeps 63 bits."""


def add_out_folder(
    parser: argparse._ActionsContainer,
    *,
    required: bool = True,
    words: str = "folder to write",
) -> None:
    """Add `--out`, a folder, checked before any work.

    Args:
        parser: Parser or group.
        required: Whether it must be given.
        words: For the help.
    """
    _out(parser, "--out", out_folder, "FOLDER", None, required, words)


def add_out_file(
    parser: argparse._ActionsContainer,
    default: str | None = None,
    *,
    required: bool = True,
    words: str = "file to write",
    name: str = "--out",
) -> None:
    """Add `--out`, or another name, a file, checked before any work; see `add_out_folder`."""
    _out(parser, name, out_file, "FILE", default, required, words)


def add_overrides(parser: argparse._ActionsContainer, words: str = "changes to settings") -> None:
    """Let the command line end with settings, `key=value`; they are read by `settings.load`."""
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=words)


def add_seed(parser: argparse._ActionsContainer, words: str, default: int | None = 0) -> None:
    """Add `--seed`; `words` says of what."""
    parser.add_argument("--seed", type=seed, default=default, metavar="N", help=words)


def add_device(parser: argparse._ActionsContainer, default: str | None = _AUTO) -> None:
    """Add `--device`; None where settings hold the default, which is `auto` too."""
    parser.add_argument(
        "--device",
        default=default,
        help="torch device; auto is a GPU where there is one, under torchrun one for each process, "
        f"or the CPU (default: {_AUTO})",
    )


def add_dtype(
    parser: argparse._ActionsContainer,
    words: str = "of the model",
    default: str | None = _AUTO,
    *,
    auto: str = "bfloat16 where the device multiplies it fast, or float32",
    choices: Sequence[str] = (_AUTO, "float32", "bfloat16"),
) -> None:
    """Add `--dtype`.

    Args:
        parser: Parser or group.
        words: Whose precision it is.
        default: None where settings hold the default, which is `auto` too.
        auto: What that means.
        choices: Precisions, by torch's names.
    """
    parser.add_argument(
        "--dtype",
        choices=choices,
        default=default,
        help=f"precision {words}; auto is {auto} (default: {_AUTO})",
    )


def add_quantization(parser: argparse._ActionsContainer, default: str | None = "none") -> None:
    """Add `--quantization`.

    Args:
        parser: Parser or group.
        default: None where settings hold the default, which is `none` too.
    """
    parser.add_argument(
        "--quantization",
        choices=("none", "int8", "float8"),
        default=default,
        help="bytes for the weights of the experts: int8 on any device, float8 multiplied as such "
        "by an H100 or later; pictures differ (default: none)",
    )


def seed(text: str) -> int:
    """Read a seed.

    Raises:
        argparse.ArgumentTypeError: It is no number from 0 to `MAX_SEED`.
    """
    return _integer(text, 0, MAX_SEED)


def count(text: str) -> int:
    """Read a number of things, 1 or more.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    return _integer(text, 1, 2**31)


def add_batch_size(parser: argparse._ActionsContainer, words: str, *, most: int | str) -> None:
    """Add `--batch-size`: a number of things side by side, or `auto`, which is None.

    Args:
        parser: Gets the option.
        words: What stands side by side.
        most: As many at most come of `auto`.
    """
    parser.add_argument(
        "--batch-size",
        type=count_or_auto,
        metavar="N",
        help=f"{words}; default: auto, as many as memory has room for, at most {most}",
    )


def count_or_auto(text: str) -> int | None:
    """Read a number of things, 1 or more, or `auto`, which is None.

    Raises:
        argparse.ArgumentTypeError: It is neither.
    """
    if text == "auto":
        return None
    try:
        return count(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or auto") from None


def natural(text: str) -> int:
    """Read a number of things, 0 or more.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    return _integer(text, 0, 2**31)


def finite(text: str) -> float:
    """Read a number; what `type=float` of a `Parser` means.

    Raises:
        argparse.ArgumentTypeError: It is none, or NaN or infinite, which comparisons let through.
    """
    return _number(text, "a finite number")


def amount(text: str) -> float:
    """Read a finite number of 0 or more: money, or a most of what may differ.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    return _number(text, "a number of 0 or more", least=0)


def share(text: str) -> float:
    """Read a share, above 0 and at most 1.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    value = _number(text, words := "a share, more than 0 and at most 1", least=0, most=1)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r}: give {words}")
    return value


def percent(text: str) -> float:
    """Read a share that is given in percent, 0 to 100.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    return _number(text, "a number of percent, 0 to 100", least=0, most=100) / 100


def _number(text: str, words: str, *, least: float = -math.inf, most: float = math.inf) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and least <= value <= most):
        raise argparse.ArgumentTypeError(f"{text!r}: give {words}")
    return value


def _integer(text: str, least: int, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        upper = "" if most >= 2**31 and least else f" to {most}"
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from {least}{upper}")
    return value


def _out(
    parser: argparse._ActionsContainer,
    name: str,
    kind: Any,
    metavar: str,
    default: str | None,
    required: bool,
    words: str,
) -> None:
    parser.add_argument(
        name,
        type=kind,
        default=default,
        required=required and default is None,
        metavar=metavar,
        help=words,
    )
