"""The `staged` command: finding a command and running it."""

from collections.abc import Mapping, Sequence

import staged
from staged.cli.commands import COMMANDS, Command
from staged.command_line import dispatch, run, table_parser
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
    return run("staged", lambda: choose(argv, commands))


def choose(argv: Sequence[str] | None, commands: Mapping[str, Command] = COMMANDS) -> int:
    """Run the command that a command line names; its errors are the caller's."""
    parser = table_parser(
        commands,
        prog="staged",
        noun="command",
        description="Text-to-image generation that plans, sketches, inspects and refines.",
        example='staged generate "a red circle above a blue star"',
    )
    version = f"staged {staged.__version__}"
    parser.add_argument(
        "-V", "--version", action="version", version=version, help="print the version"
    )
    prefer_ours()
    return dispatch(parser, argv, "command")
