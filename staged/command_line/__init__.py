"""What every command shares: its parser, its options, its output, its exit status.

A command is `main(argv) -> int` that makes a `Parser`; whoever starts one as a process does so
through `run`. Imports no torch.
"""

from staged.command_line import exit_codes, outputs
from staged.command_line.console import console
from staged.command_line.dispatch import Command, dispatch, table_parser, walk
from staged.command_line.options import (
    MAX_SEED,
    add_batch_size,
    add_device,
    add_dtype,
    add_out_file,
    add_out_folder,
    add_overrides,
    add_quantization,
    add_seed,
    amount,
    count,
    count_or_auto,
    natural,
    percent,
    seed,
    share,
)
from staged.command_line.parser import Parser, UsageError
from staged.command_line.parts import Part, add_parts, run_part
from staged.command_line.running import run

__all__ = [
    "MAX_SEED",
    "Command",
    "Parser",
    "Part",
    "UsageError",
    "add_batch_size",
    "add_device",
    "add_dtype",
    "add_out_file",
    "add_out_folder",
    "add_overrides",
    "add_parts",
    "add_quantization",
    "add_seed",
    "amount",
    "console",
    "count",
    "count_or_auto",
    "dispatch",
    "exit_codes",
    "natural",
    "outputs",
    "percent",
    "run",
    "run_part",
    "seed",
    "share",
    "table_parser",
    "walk",
]
