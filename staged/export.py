"""`staged export` and `staged merge-lora`: what is there, in the published layout."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from staged.command_line import Parser, add_dtype, add_out_folder, console, exit_codes, outputs

if TYPE_CHECKING:
    from staged.model.rewrite import Rewritten

_EXPORT = """example:
  staged export runs/elsewhere/0010000 --like weights/BAGEL-7B-MoT --out weights/tuned

Weights are read from one safetensors file, from parts with an index or without, under the published
names or with what wrappers put before them (module., _orig_mod., base_model.model. and their like);
tables of positions that are missing are computed. Whatever does not fit is named, and nothing is
written then. What was written is read back and compared, bit by bit. A run of `staged train` writes
its own checkpoint in this layout, when it ends or with --export."""
_MERGE = """example:
  staged merge-lora runs/lora/adapter --out weights/tuned

Weights plus LoRA, computed in float32 and stored as the weights were: a checkpoint like any other,
for tools that know no LoRA. `staged generate --lora` needs none of it."""


def main(argv: list[str]) -> int:
    """Run `staged export`."""
    parser = Parser(
        prog="staged export",
        description="Write a checkpoint in the published layout, whoever made it.",
        epilog=_EXPORT,
        figures=True,
    )
    add = parser.add_argument
    add("source", help="folder with the weights, Hub id, miniature:NAME, or folder of a LoRA")
    add(
        "--like",
        metavar="CHECKPOINT",
        help="take configuration, tokenizer and autoencoder from this one, where the folder of the "
        "weights has none",
    )
    add("--lora", type=Path, metavar="FOLDER", help="LoRA (PEFT's format) to merge into them")
    _add_output(parser)
    options = parser.parse_args(argv)
    return _write(options, options.source, options.lora, options.like)


def merge_lora(argv: list[str]) -> int:
    """Run `staged merge-lora`."""
    parser = Parser(
        prog="staged merge-lora",
        description="Add a LoRA to the weights of its checkpoint.",
        epilog=_MERGE,
        figures=True,
    )
    add = parser.add_argument
    add("lora", type=Path, help="its folder: adapter_config.json and adapter_model.safetensors")
    add(
        "--checkpoint",
        help="what it belongs to: folder, Hub id or miniature:NAME (default: what it says itself)",
    )
    _add_output(parser)
    options = parser.parse_args(argv)
    if options.checkpoint is None:
        return _write(options, str(options.lora), None, None)
    return _write(options, options.checkpoint, options.lora, None)


def _add_output(parser: Parser) -> None:
    add_out_folder(parser, words="folder of the new checkpoint")
    add_dtype(parser, "of the weights that are written", auto="what each is stored in")


def _write(options: argparse.Namespace, source: str, lora: Path | None, like: str | None) -> int:
    # What follows needs torch; `--help` does not.
    import torch

    from staged.model.open import find_checkpoint
    from staged.model.rewrite import rewrite
    from staged.model.stored_weights import StoredWeights

    folders, adapter = find_checkpoint(source, lora=lora)
    if like is not None:
        other, _ = find_checkpoint(like)
        folders = replace(folders, autoencoder=other.autoencoder, rest=other.rest)
    if options.out.resolve() in {path.resolve() for path in vars(folders).values()}:
        raise ValueError(f"{options.out} is where the checkpoint is read from; name another folder")
    if options.out.is_dir() and any(options.out.iterdir()):
        raise ValueError(f"{options.out} is not empty; name another folder, or remove it")
    outputs.folder(options.out, need_bytes=2 * StoredWeights.find(folders.weights).num_bytes)
    dtype = None if options.dtype == "auto" else getattr(torch, options.dtype)
    written = rewrite(folders, options.out, adapter=adapter, dtype=dtype)
    _tell(written)
    return exit_codes.OK


def _tell(written: Rewritten) -> None:
    print(
        f"wrote and read back {written.num_tensors} tensors, {written.num_bytes / 1e9:.2f} GB: "
        f"{written.folder}"
    )
    if written.num_merged:
        print(f"a LoRA was added to {written.num_merged} of them")
    if written.num_renamed:
        print(f"{written.num_renamed} were called otherwise")
    if written.computed:
        print(f"missing and computed: {', '.join(written.computed)}")
    console().figures(
        {
            "out": str(written.folder),
            "tensors": written.num_tensors,
            "bytes": written.num_bytes,
            "merged": written.num_merged,
            "renamed": written.num_renamed,
            "computed": list(written.computed),
        }
    )
