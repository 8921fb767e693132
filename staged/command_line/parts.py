"""Commands with parts that are a table: what each takes, and what runs it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from staged.command_line.parser import Parser


class Part(NamedTuple):
    """A row of a table of parts, which share a module; `Command` is a row of modules.

    Attributes:
        help: One line for the `--help` above it.
        options: Lets its parser take what it takes.
        run: Does it; returns the exit status.
        epilog: An example.
        description: What its own `--help` says first; without one, `help`.
        figures: It ends with `console().figures(...)`, so it has `--json`.
    """

    help: str
    options: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]
    epilog: str
    description: str | None = None
    figures: bool = True


def add_parts(parser: Parser, parts: Mapping[str, Part], noun: str = "command") -> None:
    """Let a parser take one of a table of parts.

    Args:
        parser: Of the command above.
        parts: The table, by name.
        noun: What a row is called, in `--help` and errors.
    """
    group = parser.add_subparsers(dest=noun, required=True, metavar=noun.upper(), help="what to do")
    for name, row in parts.items():
        part = group.add_parser(
            name,
            figures=row.figures,
            help=row.help,
            description=row.description,
            epilog=row.epilog,
        )
        row.options(part)
        part.set_defaults(run_part=row.run)


def run_part(parser: Parser, argv: Sequence[str] | None) -> int:
    """Run the part that a command line names.

    Args:
        parser: With parts.
        argv: Arguments; the process's own when None.

    Returns:
        What the part returned.
    """
    options = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run_part
    return run(options)
