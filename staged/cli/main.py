"""Finding a command, running it, and turning what goes wrong into one line and an exit code."""

import argparse
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence

import staged
from staged.cli.commands import COMMANDS, Command

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None, commands: Mapping[str, Command] = COMMANDS) -> int:
    """Run `staged ARGS`.

    Args:
        argv: Arguments without the program's name; `None` takes them from `sys.argv`.
        commands: The table of commands.

    Returns:
        0 for success, 1 for a failure that was reported in a line on standard error, 2 for a
        command line that is wrong, 130 after Ctrl-C; otherwise what the command returned.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    # Only what stands before the command is ours; the rest is the command's own.
    at = next((i for i, word in enumerate(argv) if not word.startswith("-")), len(argv))
    parser = _parser(commands)
    options = parser.parse_args(argv[:at])
    if at == len(argv):
        parser.print_help()
        return EXIT_USAGE
    name, arguments = argv[at], argv[at + 1 :]
    if name not in commands:
        parser.error(f"unknown command {name!r}{_suggestion(name, commands)}")
    debug = options.debug or os.environ.get("STAGED_DEBUG", "0") not in ("", "0")
    return _run(name, commands[name], arguments, debug)


def _run(name: str, command: Command, arguments: list[str], debug: bool) -> int:
    try:
        module, _, function = command.target.partition(":")
        result = getattr(importlib.import_module(module), function)(arguments)
        sys.stdout.flush()
        return int(result)
    except KeyboardInterrupt:
        _say("interrupted; what is saved is kept, and the same command goes on from there")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except ModuleNotFoundError as error:
        if debug:
            traceback.print_exc()
        _say(f"error: `staged {name}` needs the module {error.name!r}, which is not installed")
        return EXIT_FAILED
    except (ValueError, OSError) as error:
        if debug:
            traceback.print_exc()
        _say(f"error: {error}" if str(error) else f"error: {type(error).__name__}")
        return EXIT_FAILED


def _parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    width = max(map(len, commands), default=0)
    table = "\n".join(f"  {name:{width}}  {command.help}" for name, command in commands.items())
    parser = argparse.ArgumentParser(
        prog="staged",
        usage="staged [--debug] COMMAND ...",
        description="Text-to-image generation that plans, sketches, inspects and refines.",
        epilog=f"commands:\n{table}\n\n`staged COMMAND --help` shows a command's options.\n"
        'example: staged generate "a red circle above a blue star"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"staged {staged.__version__}")
    parser.add_argument(
        "--debug", action="store_true", help="show where an error arose (or set STAGED_DEBUG=1)"
    )
    return parser


def _suggestion(name: str, commands: Mapping[str, Command]) -> str:
    if close := difflib.get_close_matches(name, commands, n=1):
        return f"; did you mean `staged {close[0]}`?"
    return f"; commands: {', '.join(commands)}"


def _say(line: str) -> None:
    print(f"staged: {line}", file=sys.stderr)
