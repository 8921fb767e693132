"""The parser that every command is made with, so that all of them behave alike."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from staged.command_line.console import LOG_LEVELS, console
from staged.command_line.exit_codes import USAGE
from staged.command_line.options import finite

if TYPE_CHECKING:
    from staged.command_line.dispatch import Command


class UsageError(ValueError):
    """Options that do not go together, or one that is missing: a wrong command line."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps texts as they are written, and states the default of every option that has one.

    The usage line names what must be given; the rest is `[OPTIONS]`, explained below it.
    """

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[Any],
        prefix: str | None = None,
    ) -> None:
        """Add the usage line."""
        given = list(actions)
        if usage is None and prefix is None:  # with one, it is the start of a part's own line
            others = argparse.Action([], dest="", metavar="[OPTIONS]")
            given = [others, *(a for a in given if a.required or not a.option_strings)]
        super().add_usage(usage, given, groups if usage else (), prefix)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        silent = (None, False, argparse.SUPPRESS)
        if any(action.default is value for value in silent) or action.default in ("", [], ()):
            return text
        if not action.option_strings or "default" in text:
            return text
        return f"{text} (default: %(default)s)".strip()


_describing = False


class _Described(Exception):
    """Brings a parser out of the command that made it."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser


class _Parts(argparse._SubParsersAction):  # type: ignore[type-arg]
    """Parts of a command: what the list says of one is the description of its own help."""

    def add_parser(self, name: str, **arguments: Any) -> Any:
        words = arguments.get("help", "")
        if arguments.get("description") is None:
            arguments["description"] = f"{words[:1].upper()}{words[1:]}."
        return super().add_parser(name, **arguments)


class Parser(argparse.ArgumentParser):
    """An `argparse` parser with the conventions of `staged`.

    - No option may be abbreviated: a new option would change what an old script means.
    - A positional called `overrides` takes `key=value` settings, wherever they stand.
    - A wrong command line is told in one line, with exit status 2.
    - `type=float` is a finite number.
    - `--quiet`, `--log-level` and `--debug` are there; `--json` where a command has figures.

    Attributes:
        commands: The table of commands that it chooses from, if any; see `dispatch`.
    """

    commands: Mapping[str, Command] = MappingProxyType({})

    def __init__(self, *, figures: bool = False, **arguments: Any) -> None:
        """Make a parser.

        Args:
            figures: The command ends with `console().figures(...)`, so it has `--json`.
            arguments: Of `argparse.ArgumentParser`.
        """
        arguments.setdefault("formatter_class", HelpFormatter)
        arguments["allow_abbrev"] = False
        super().__init__(**arguments)
        self.register("action", "parsers", _Parts)
        self.register("type", float, finite)
        self._add_general(figures)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse a whole command line, and do what its general options ask for."""
        found, rest = self.parse_known_args(args, namespace)
        # argparse fills a list of positionals in one run only; settings may also follow an option.
        if rest and hasattr(found, "overrides") and all(map(_is_setting, rest)):
            found.overrides = [*found.overrides, *rest]
        elif rest:
            known = [option for parser in self._chosen(args) for option in parser.options()]
            self.error(f"unrecognized arguments: {' '.join(rest)}{_nearest(rest, known)}")
        console().ask(
            quiet=getattr(found, "quiet", False),
            json=getattr(found, "json", False),
            debug=getattr(found, "debug", False),
            log_level=getattr(found, "log_level", None),
        )
        return found

    parse_intermixed_args = parse_args  # type: ignore[assignment]

    def error(self, message: str) -> NoReturn:
        """Tell what is wrong in one line, and exit with 2."""
        self.exit(USAGE, f"{self.prog}: error: {message} (see `{self.prog} --help`)\n")

    def print_help(self, file: Any = None) -> None:
        """Print the help, or hand the parser to `parser_of`."""
        if _describing:
            raise _Described(self)
        super().print_help(file)

    def options(self) -> list[str]:
        """Every option, in order."""
        return [name for action in self._actions for name in action.option_strings]

    def parts(self) -> dict[str, Parser]:
        """The commands under this one, by name."""
        found: dict[str, Parser] = {}
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                found |= action.choices
        return found

    def _add_general(self, figures: bool) -> None:
        group = self.add_argument_group("output")
        # Suppressed defaults, so that a part of a command does not undo what stands before it.
        quiet = {"action": "store_true", "default": argparse.SUPPRESS}
        group.add_argument("-q", "--quiet", help="print errors only", **quiet)  # type: ignore[arg-type]
        if figures:
            words = "print one line of JSON with the figures; the text goes to standard error"
            group.add_argument("--json", help=words, **quiet)  # type: ignore[arg-type]
        group.add_argument(
            "--log-level",
            choices=LOG_LEVELS,
            default=argparse.SUPPRESS,
            help="show what libraries log, from this level on (default: their own warnings)",
        )
        group.add_argument("--debug", help="show where an error arose", **quiet)  # type: ignore[arg-type]

    def _chosen(self, args: Sequence[str] | None) -> list[Parser]:
        words = sys.argv[1:] if args is None else args
        return [self, *(part for name, part in self.parts().items() if name in words)]


def parser_of(main: Callable[[list[str]], int]) -> Parser:
    """Return the parser of a command, without running it."""
    global _describing
    _describing = True
    try:
        main(["--help"])
    except _Described as described:
        return described.parser
    finally:
        _describing = False
    raise AssertionError(f"{main} shows no help")


def _is_setting(text: str) -> bool:
    return "=" in text and not text.startswith("-")


def _nearest(words: Sequence[str], known: Sequence[str]) -> str:
    for word in words:
        if close := difflib.get_close_matches(word.partition("=")[0], known, n=1):
            return f"; did you mean {close[0]}?"
    return ""
