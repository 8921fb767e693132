"""The command line of `staged verify`."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import torch

from staged.verify import parts
from staged.verify.comparison import TOLERANCE, Comparisons
from staged.verify.golden import Golden
from staged.verify.infer import infer
from staged.verify.keys import verify_keys
from staged.verify.train import train

__all__ = ["GROUPS", "main"]

GROUPS: dict[str, Callable[[Golden, Comparisons], None]] = {
    "vae": parts.vae,
    "vit": parts.vit,
    "train": train,
    "infer": infer,
    "schedule": parts.schedule,
    "positions": parts.positions,
    "resize": parts.resizing,
}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `staged verify`.

    Args:
        argv: Arguments after `staged verify`; the process's own when None.

    Returns:
        0 when everything agrees, 1 when something does not, 2 when it could not be compared.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if (arguments.keys is None) != (arguments.config is None):
        parser.error("--keys and --config go together")
    if (arguments.keys is None) == (arguments.directory is None):
        parser.error("give a directory of reference numbers, or --keys and --config")
    try:
        if arguments.keys is not None:
            return 0 if verify_keys(arguments.keys, arguments.config) else 1
        return _verify_golden(arguments)
    except ValueError as error:
        print(f"staged verify: {error}", file=sys.stderr)
        return 2


def _verify_golden(arguments: argparse.Namespace) -> int:
    # cuDNN's convolutions round float32 inputs to TF32 by default: errors of 1e-3.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    started = time.perf_counter()
    golden = Golden.read(
        arguments.directory, device=arguments.device, dtype=_DTYPES[arguments.dtype]
    )
    results = Comparisons(tolerance=arguments.tolerance)
    groups = list(dict.fromkeys(arguments.group or GROUPS))
    for name in groups:
        GROUPS[name](golden, results)
    seconds = time.perf_counter() - started
    failed = results.failed
    worst = max(results.made, key=lambda comparison: comparison.relative)
    print(
        f"{len(results.made)} comparisons in {len(groups)} groups on {arguments.device} in "
        f"{arguments.dtype}, {seconds:.1f} s; largest relative error {worst.relative:.2e} "
        f"({worst.group} {worst.name})"
    )
    if failed:
        broken = ", ".join(dict.fromkeys(comparison.group for comparison in failed))
        print(f"FAILED: {len(failed)} comparisons, in {broken}")
        return 1
    print(f"passed: {', '.join(groups)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="staged verify",
        description="Compare this implementation with numbers of the reference one.",
        epilog="example: staged verify bagel tests/golden/bagel_tiny",
    )
    models = parser.add_subparsers(dest="model", required=True, metavar="MODEL")
    bagel = models.add_parser(
        "bagel",
        usage="%(prog)s [options] (DIRECTORY | --keys FILE --config DIRECTORY)",
        help="against a directory of reference tensors, or a list of names and shapes",
    )
    bagel.add_argument("directory", nargs="?", help="folder with golden.json and its tensors")
    bagel.add_argument("--group", action="append", choices=list(GROUPS), help="only this group")
    bagel.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    bagel.add_argument("--dtype", default="float32", choices=list(_DTYPES), help="of the weights")
    bagel.add_argument(
        "--tolerance",
        type=_tolerance,
        default=TOLERANCE,
        help="largest error over the reference's largest magnitude (default: %(default)s)",
    )
    bagel.add_argument("--keys", help="JSON file with names and shapes, by `model` and `ae`")
    bagel.add_argument("--config", help="folder with the published configuration files")
    return parser


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a number in [0, 1)")
    return value
