"""The command lines of `staged eval convert-detector` and `staged eval convert-reward`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.rewards.kinds import CLIP_H_TOKENIZER
from staged.command_line import Parser, add_out_folder, exit_codes


def detector(argv: Sequence[str] | None = None) -> int:
    """Run `staged eval convert-detector`.

    Args:
        argv: Arguments after the command; the process's own when None.

    Raises:
        ValueError: not a checkpoint of mmdet's Mask2Former with a Swin backbone.
        OSError: a file cannot be read or written.
    """
    parser = Parser(
        prog="staged eval convert-detector",
        description="Convert mmdet's Mask2Former checkpoint, GenEval's detector.",
        epilog="example: staged eval convert-detector "
        "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.pth --out detectors/mmdet",
    )
    parser.add_argument("checkpoint", type=Path, help="file of mmdet 2.x (.pth)")
    add_out_folder(parser, words="folder for --weights")
    arguments = parser.parse_args(argv)
    from eval.converters.mmdet import convert_file

    convert_file(arguments.checkpoint, arguments.out)
    print(f"wrote {arguments.out}")
    return exit_codes.OK


def reward(argv: Sequence[str] | None = None) -> int:
    """Run `staged eval convert-reward`.

    Args:
        argv: Arguments after the command; the process's own when None.

    Raises:
        ValueError: not a checkpoint of that reward.
        OSError: a file cannot be read or written.
    """
    parser = Parser(
        prog="staged eval convert-reward",
        description="Convert a reward's published checkpoint to safetensors, for --weights.",
        epilog="example: staged eval convert-reward hps HPS_v2.1_compressed.pt --out rewards/hps\n"
        "         staged eval convert-reward aesthetic sac+logos+ava1-l14-linearMSE.pth "
        "--out rewards/aesthetic",
    )
    add = parser.add_argument
    add("reward", choices=("aesthetic", "hps"), help="whose checkpoint it is")
    add("checkpoint", type=Path, help="file of PyTorch (.pt, .pth)")
    add_out_folder(parser, words="folder for --weights")
    add(
        "--tokenizer",
        default=CLIP_H_TOKENIZER,
        help="hps: CLIP's tokenizer, folder or Hub id (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    if arguments.reward == "hps":
        from eval.converters.open_clip import convert_file

        convert_file(arguments.checkpoint, arguments.out, arguments.tokenizer)
    else:
        from eval.converters.aesthetic import convert_head

        convert_head(arguments.checkpoint, arguments.out)
    print(f"wrote {arguments.out}; use it as --weights {arguments.reward}={arguments.out}")
    return exit_codes.OK
