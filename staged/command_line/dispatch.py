"""Commands that are a table of commands: choosing one, and walking over all of them."""

from __future__ import annotations

import argparse
import difflib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from staged.command_line import exit_codes
from staged.command_line.parser import Parser, parser_of


class Command(NamedTuple):
    """A row of a table of commands.

    Attributes:
        help: One line for the `--help` above it.
        target: `module:function` of a `main(argv) -> int`, imported only when it runs.
    """

    help: str
    target: str

    def load(self) -> Callable[[list[str]], int]:
        """Import the function."""
        module, _, function = self.target.partition(":")
        found: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
        return found


def table_parser(
    commands: Mapping[str, Command], *, prog: str, noun: str, description: str, example: str
) -> Parser:
    """Make the parser of a table of commands.

    Args:
        commands: The table.
        prog: What is typed before the command.
        noun: What a row is called, in `--help` and errors.
        description: What all of them are for.
        example: One command line.
    """
    width = max(map(len, commands), default=0)
    rows = "\n".join(f"  {name:{width}}  {row.help}" for name, row in commands.items())
    parser = Parser(
        prog=prog,
        usage=f"{prog} [OPTIONS] {noun.upper()} ...",
        description=description,
        epilog=f"{noun}s:\n{rows}\n\n`{prog} {noun.upper()} --help` shows its options.\n"
        f"example: {example}",
    )
    parser.commands = commands
    # Everything from the command's name on is the command's own.
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def dispatch(parser: Parser, argv: Sequence[str] | None, noun: str) -> int:
    """Run the command that a command line names.

    Args:
        parser: Of `table_parser`.
        argv: Arguments; the process's own when None.
        noun: As given to `table_parser`.

    Returns:
        What the command returned; 2 after showing the help where none is named.
    """
    name, *arguments = parser.parse_args(argv).command or [""]
    if not name:
        parser.print_help()
        return exit_codes.USAGE
    if name not in parser.commands:
        close = difflib.get_close_matches(name, parser.commands, n=1)
        hint = (
            f"did you mean `{parser.prog} {close[0]}`?"
            if close
            else f"{noun}s: {', '.join(parser.commands)}"
        )
        parser.error(f"unknown {noun} {name!r}; {hint}")
    return int(parser.commands[name].load()(arguments))


def walk(
    main: Callable[[list[str]], int], words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Parser]]:
    """Yield every command of a tree with its parser, in order, from the top.

    Args:
        main: The command at the top.
        words: What is typed to get there.
    """
    yield from _below(words, parser_of(main))


def _below(words: tuple[str, ...], parser: Parser) -> Iterator[tuple[tuple[str, ...], Parser]]:
    yield words, parser
    for name, part in parser.parts().items():
        yield from _below((*words, name), part)
    for name, row in parser.commands.items():
        yield from walk(row.load(), (*words, name))
