r"""Text files as people have them: byte-order marks, `\r\n`, and characters that end no line."""

import ast
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from data_pipelines.prompts import from_file
from eval.geneval.prompts import load_prompts
from eval.pictures import read_pictures
from eval.wise.judgements import read_judgements
from eval.wise.versions import VERSIONS
from staged import strict_json, strict_yaml
from staged.first_line import MAX_CHARS, first_line
from staged.generate.requests import read_prompts
from staged.lines import read_lines, split_lines
from staged.report.figures import Curve
from train.run_folder import cut_log

ROOT = Path(__file__).parent.parent
ODD = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"
"""One line, whatever `str.splitlines` says."""
MARK = b"\xef\xbb\xbf"


def prompt(text: str) -> str:
    record = {"tag": "counting", "include": [{"class": "dog", "count": 2}], "prompt": text}
    return json.dumps(record, ensure_ascii=False)


def judged(text: str) -> str:
    return json.dumps({"prompt_id": len(text), "score": 1, "judge": text}, ensure_ascii=False)


def pictured(text: str) -> str:
    return json.dumps({"image": "a.png", "prompt": text}, ensure_ascii=False)


def logged(text: str) -> str:
    return json.dumps({"step": 1, "mse": 0.5, "note": text}, ensure_ascii=False)


def curve(path: Path) -> int:
    return len(Curve.from_log(path, {"mse": "loss"}).series[0].points)


def cut(path: Path) -> int:
    cut_log(path, 1)
    return path.read_bytes().count(b"\n")


READERS: list[tuple[str, Callable[[str], str], Callable[[Path], int]]] = [
    ("prompts to draw", str, lambda path: len(read_prompts(path))),
    ("GenEval's prompts", prompt, lambda path: len(load_prompts(path).prompts)),
    ("images", pictured, lambda path: len(read_pictures(path))),
    (
        "judgements",
        judged,
        lambda path: sum(
            judgement.score is not None
            for judgement in read_judgements(path, VERSIONS["verified"]).by_id.values()
        ),
    ),
    ("training log", logged, curve),
    ("training log, cut", logged, cut),
]


@pytest.mark.parametrize(
    ("written", "read"), [row[1:] for row in READERS], ids=[row[0] for row in READERS]
)
def test_every_reader_of_lines_takes_what_windows_writes(
    tmp_path: Path, written: Callable[[str], str], read: Callable[[Path], int]
) -> None:
    (tmp_path / "a.png").touch()
    path = tmp_path / "file"
    path.write_bytes(MARK + f"{written(ODD)}\r\n\r\n{written('plain')}\r\n".encode())
    assert read(path) == 2


def test_prompts_of_a_data_set_lose_mark_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(MARK + "a red\u00a0circle\r\n\r\nein blauer W\u00fcrfel".encode())
    prompt_of = from_file(path, 2)
    assert [prompt_of(i).text for i in range(2)] == ["a red\u00a0circle", "ein blauer W\u00fcrfel"]


def test_lines_keep_their_numbers_and_content() -> None:
    content = MARK + f"one\r\n\n  \n{ODD}\rx\nhalf".encode()
    found = [(line.content.decode(), line.place) for line in split_lines(content, "f")]
    assert found == [("one", "f:1"), (f"{ODD}\rx", "f:4"), ("half", "f:5")]
    assert len(list(split_lines(content, "f", whole=True))) == 2


def test_lines_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(b"12345\r\n123456\n")
    lines = read_lines(path, max_bytes=5)
    assert next(lines).content == b"12345"
    with pytest.raises(ValueError, match=r"long:2: a line of more than 5 bytes"):
        next(lines)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa dog\n".encode(encoding))
    for read in (
        read_prompts,
        strict_yaml.read,
        lambda path: strict_json.read(path, max_bytes=99),
    ):
        with pytest.raises(ValueError, match=r"prompts\.txt: UTF-16 text.*save the file as UTF-8"):
            read(path)
    path.write_bytes("a dog\r\ncaf\u00e9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"prompts\.txt:2: no UTF-8 text"):
        read_prompts(path)


def test_settings_and_json_may_begin_with_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(MARK + b"a: 1\r\nb: [x]\r\n")
    assert strict_yaml.read(path)[0] == {"a": 1, "b": ["x"]}
    path.write_bytes(MARK + b'{"a": 1}\r\n')
    assert strict_json.read(path, max_bytes=100) == {"a": 1}


@pytest.mark.parametrize(
    ("call", "allowed"),
    [
        ("splitlines", {"staged/settings/table.py"}),  # docstrings of our own
        ("readlines", set()),
        # These read what we wrote ourselves, or the kernel did.
        (
            "read_text",
            {
                "eval/study/page.py",
                "staged/cli/configs.py",
                "staged/device_memory.py",
                "staged/jobs/locks.py",
                "staged/report/page.py",
                "staged/shapes/expectation.py",
                "staged/shapes/miniature.py",
                "staged/shapes/ship.py",
                "train/reinforce/run_folder.py",
                "train/run_folder.py",
                "train/trackers.py",
            },
        ),
        ("json.load", set()),
        ("Image.open", {"staged/images.py"}),
    ],
)
def test_one_reader_is_used_everywhere(call: str, allowed: set[str]) -> None:
    found = {
        path
        for path, names in called().items()
        if any(name == call or name.endswith(f".{call}") for name in names)
    }
    assert found == allowed


@cache
def called() -> dict[str, set[str]]:
    """What each file of ours calls, as it is written there."""
    found = {}
    for folder in ("staged", "data_pipelines", "train", "eval"):
        for path in (ROOT / folder).rglob("*.py"):
            calls = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))
            found[path.relative_to(ROOT).as_posix()] = {ast.unparse(node.func) for node in calls}
    return found


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("\n  it broke  \nand here is why", "it broke"),
        ("", "OSError"),
        ("x" * 1000, "x" * MAX_CHARS),
    ],
)
def test_of_a_librarys_error_a_message_quotes_one_line(said: str, line: str) -> None:
    assert first_line(OSError(said)) == line
