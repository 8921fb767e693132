"""Every command in the README and the docs is one that its parser takes, settings included."""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from staged.cli import main
from staged.command_line import Parser
from staged.settings.build import SettingsBuilder

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = {
    "staged": "staged.cli",
    "train": "train.__main__",
    "train.autoencoder": "train.autoencoder.__main__",
    "eval": "eval.__main__",
    "data_pipelines": "data_pipelines.__main__",
}
OTHERS = {
    "pip", "hf", "vllm", "ray", "export", "git", "cd", "cp", ".", "python3", "wait", "printf",
}  # fmt: skip
"""Programs whose options are not ours to check."""
_SHELL = {"do", "then", "else", "nice"}


class TakenError(BaseException):
    """The command line and its settings were read; what follows would be the work."""


def blocks(text: str) -> Iterator[tuple[int, str]]:
    """The number of its first line, and the text, of every block of shell in a page."""
    for found in re.finditer(r"^```(?:sh|bash|console)\n(.*?)^```$", text, re.M | re.S):
        yield text.count("\n", 0, found.start(1)) + 1, found[1]


def commands(block: str) -> Iterator[list[str]]:
    """The words of each simple command: no variables, redirections, comments or loops."""
    block = block.replace("\\\n", " ").replace("$rank", "0")
    for line in block.splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|()"):
                yield from _without_shell(words)
                words = []
            else:
                words.append(word)


def _without_shell(words: list[str]) -> Iterator[list[str]]:
    while words and (words[0] in _SHELL or re.fullmatch(r"[A-Z_]+=.*", words[0])):
        words = words[1:]
    if ">" in words:
        words = words[: words.index(">")]
    if words and words[0] not in ("for", "done"):
        yield words


def documented() -> list[Any]:
    found = []
    for page in PAGES:
        for line, block in blocks(page.read_text(encoding="utf-8")):
            for number, words in enumerate(commands(block)):
                label = f"{page.relative_to(ROOT)}:{line}.{number}"
                found.append(pytest.param(words, id=label))
    return found


def read(words: list[str]) -> None:
    """Give a command its words, as far as they are read.

    Raises:
        TakenError: the command takes them.
        SystemExit: it does not.
        ValueError: its settings are wrong, which a command itself tells and returns.
    """
    program, *rest = words
    if program in ("torchrun", "accelerate"):
        program, rest = "python", rest[rest.index("-m") :]
    if Path(program).name == "staged":
        raise ValueError(f"ended with {main(rest)}")
    elif Path(program).name == "python" and rest[0] == "-m" and rest[1] in MODULES:
        raise ValueError(importlib.import_module(MODULES[rest[1]]).main(rest[2:]))
    elif program == "python" and (ROOT / rest[0]).is_file():
        module = ".".join(Path(rest[0]).with_suffix("").parts)
        raise ValueError(importlib.import_module(module).main(rest[1:]))
    elif program == "make":
        targets = [word for word in rest if "=" not in word]
        text = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{target}:", text, re.M) for target in targets), targets
        raise TakenError
    elif Path(program).name == "python" and rest[:2] == ["-m", "pytest"]:
        assert all((ROOT / path).exists() for path in rest[2:] if path.startswith("tests/"))
        raise TakenError
    else:
        assert program in OTHERS, f"{program}: no program that a page may name"
        raise TakenError


@pytest.fixture
def reading_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stop every command where it has read what it was given."""
    parse, finish = Parser.parse_args, SettingsBuilder.finish

    def parse_args(self: Parser, *arguments: Any, **named: Any) -> Any:
        found = parse(self, *arguments, **named)
        # A table goes on to its command, and a job to its settings.
        if self.commands or getattr(found, "config", None) or getattr(found, "overrides", None):
            return found
        raise TakenError

    def finish_(self: SettingsBuilder, *arguments: Any, **named: Any) -> NoReturn:
        finish(self, *arguments, **named)
        raise TakenError

    monkeypatch.setattr(Parser, "parse_args", parse_args)
    monkeypatch.setattr(SettingsBuilder, "finish", finish_)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("words", documented())
@pytest.mark.usefixtures("reading_only")
def test_a_documented_command_is_taken(words: list[str]) -> None:
    with pytest.raises(TakenError):
        read(words)


@pytest.mark.parametrize(
    "line",
    [
        "staged generate --num-flow-steps 3 'a star'",
        "staged data plan-sketch configs/shapes/demo_data.yaml prompts.number=4 --out out",
        "python -m train configs/shapes/nowhere.yaml",
        "staged eval generate --benchmark geneval --out out --generator model checkpont=a",
        "make everything",
        "statged generate",
    ],
)
@pytest.mark.usefixtures("reading_only")
def test_a_wrong_one_would_be_found(line: str) -> None:
    [words] = commands(line)
    with pytest.raises((SystemExit, ValueError, OSError, AssertionError)):
        read(words)


def test_commands_stand_in_blocks_that_are_checked() -> None:
    assert len(documented()) > 40
    for page in PAGES:
        loose = re.findall(r"^ {4,}(?:staged|python|torchrun) .*$", page.read_text(), re.M)
        held = "".join(block for _, block in blocks(page.read_text()))
        assert [line for line in loose if line not in held] == [], page
    [*split] = commands(
        "FOO=1 staged a \\\n  b=1 > out & # why\nfor x in 1 2; do staged c $rank; done"
    )
    assert split == [["staged", "a", "b=1"], ["staged", "c", "0"]]
