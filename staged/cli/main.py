"""Finding a command and running it."""

import argparse
import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence

import staged
from staged.cli.commands import COMMANDS, Command
from staged.command_line import Parser, exit_codes, run
from staged.command_line.applications import prefer_ours


def main(argv: Sequence[str] | None = None, commands: Mapping[str, Command] = COMMANDS) -> int:
    """Run `staged ARGS`.

    Args:
        argv: Arguments without the program's name; `None` takes them from `sys.argv`.
        commands: The table of commands.

    Returns:
        What the command returned, or the status of what went wrong; see
        `staged.command_line.exit_codes`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run("staged", lambda: _dispatch(arguments, commands))


def _dispatch(argv: list[str], commands: Mapping[str, Command]) -> int:
    parser = _parser(commands)
    name, *arguments = parser.parse_args(argv).command or [""]
    if not name:
        parser.print_help()
        return exit_codes.USAGE
    if name not in commands:
        parser.error(f"unknown command {name!r}{_suggestion(name, commands)}")
    prefer_ours()
    module, _, function = commands[name].target.partition(":")
    return int(getattr(importlib.import_module(module), function)(arguments))


def _parser(commands: Mapping[str, Command]) -> Parser:
    width = max(map(len, commands), default=0)
    table = "\n".join(f"  {name:{width}}  {command.help}" for name, command in commands.items())
    parser = Parser(
        prog="staged",
        usage="staged [OPTIONS] COMMAND ...",
        description="Text-to-image generation that plans, sketches, inspects and refines.",
        epilog=f"commands:\n{table}\n\n`staged COMMAND --help` shows a command's options.\n"
        'example: staged generate "a red circle above a blue star"',
    )
    version = f"staged {staged.__version__}"
    parser.add_argument(
        "-V", "--version", action="version", version=version, help="print the version"
    )
    # Everything from the command on is the command's own.
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _suggestion(name: str, commands: Mapping[str, Command]) -> str:
    if close := difflib.get_close_matches(name, commands, n=1):
        return f"; did you mean `staged {close[0]}`?"
    return f"; commands: {', '.join(commands)}"
