"""Options of every command that puts probes to a checkpoint."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from eval.skills.probes import MANNERS
from staged.command_line import Parser, add_device, add_dtype, add_quantization, count, seed

if TYPE_CHECKING:  # what imports torch is imported when the command runs
    from staged.devices import Arithmetic
    from staged.engine.engine import Engine


def add_probing(parser: Parser, *, num_per_skill: int, first_seed: int) -> None:
    """Add which checkpoint to ask, how, and how much.

    Args:
        parser: Of the command.
        num_per_skill: Default.
        first_seed: Default; commands whose results are compared should not share it.
    """
    add = parser.add_argument
    add("--checkpoint", required=True, help="folder, Hub id, or miniature:base|staged|fresh")
    add(
        "--manner",
        choices=MANNERS,
        default="request",
        help="ask for edits by themselves, as of a base, or as plans of a trajectory; "
        "default: %(default)s",
    )
    add(
        "--num-per-skill",
        type=count,
        default=num_per_skill,
        help="probes of each; default: %(default)s",
    )
    add(
        "--seed",
        type=seed,
        metavar="N",
        default=first_seed,
        help="of scenes and noise; default: %(default)s",
    )
    add("--batch-size", type=count, default=64, help="side by side; default: %(default)s")
    add_device(parser)
    add_dtype(parser)
    add_quantization(parser)


def open_probed(options: argparse.Namespace) -> tuple[Engine, Arithmetic]:
    """Load the checkpoint that is asked, and say how it computes.

    Args:
        options: As `add_probing` has them.

    Raises:
        ValueError: As `staged.generate.role_choice.open_engine`.
    """
    from staged.devices import choose_arithmetic
    from staged.generate.role_choice import open_engine

    chosen = choose_arithmetic(options.device, options.dtype)
    print(chosen.words)
    engine = open_engine(
        options.checkpoint,
        device=str(chosen.device),
        dtype=chosen.dtype_name,
        quantization=options.quantization,
    )
    return engine, chosen
