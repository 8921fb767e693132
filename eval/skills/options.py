"""Options of every command that puts probes to a checkpoint."""

from __future__ import annotations

from eval.skills.probes import MANNERS
from staged.command_line import Parser, add_device, add_dtype, add_quantization, count, seed


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
