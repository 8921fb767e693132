"""What settings are held against: choices, rates, weights; and what is read within bounds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from staged import strict_json
from staged.jobs.files import read_json, write_json_lines
from staged.lines import read_bounded
from staged.ranges import check_choices, check_rates, check_weights

Way = Literal["left", "right"]


@dataclass(frozen=True, kw_only=True)
class Odds:
    lost: float = 0.0
    wrong: float = 0.0
    way: Way = "left"


def test_rates_of_what_excludes_one_another_sum_to_one_at_most() -> None:
    check_rates(Odds(lost=0.25, wrong=0.75), "lost", "wrong")
    for odds, told in (
        (Odds(lost=0.75, wrong=0.5), r"the rates sum to 1\.25"),
        (Odds(lost=-0.5), r"lost is -0\.5; give 0 or more, at most 1"),
        (Odds(wrong=float("nan")), "wrong is nan"),
    ):
        with pytest.raises(ValueError, match=told):
            check_rates(odds, "lost", "wrong")


def test_weights_are_of_what_there_is_and_one_is_above_zero() -> None:
    names = ("cut", "glue")
    check_weights("work", {"cut": 0, "glue": 2.5}, names)
    for weights, told in (
        ({"cat": 1.0}, "work: no such cat; there are cut, glue"),
        ({"cut": 1.0, "glue": -1.0}, "work: weights must be 0 or more"),
        ({"cut": float("nan")}, "work: weights must be 0 or more"),
        ({"cut": 0.0}, "work: every weight is 0"),
    ):
        with pytest.raises(ValueError, match=told):
            check_weights("work", weights, names)


def test_a_choice_is_one_of_its_literal() -> None:
    check_choices(Odds(), way=Way)
    with pytest.raises(ValueError, match="way is 'up'; give one of left, right"):
        check_choices(Odds(way="up"), way=Way)  # type: ignore[arg-type]


def test_records_come_back_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "made" / "lines.jsonl"
    write_json_lines(path, [{"a": 1}, {"a": 2, "b": "x"}])
    read = list(strict_json.read_records(path, {"a": int}, {"b": str}, max_bytes=100))
    assert read == [({"a": 1}, f"{path}:1"), ({"a": 2, "b": "x"}, f"{path}:2")]
    with pytest.raises(ValueError, match=r":2: unknown key 'b'"):
        list(strict_json.read_records(path, {"a": int}, max_bytes=100))
    with path.open("ab") as file:
        file.write(b'{"a": 3')  # a write that was cut off
    rows = strict_json.read_records(path, {"a": int}, max_bytes=100, others=True, whole=True)
    assert [row["a"] for row, _ in rows] == [1, 2]


def test_what_is_missing_or_too_large_is_told_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    with pytest.raises(ValueError, match=r"record\.json is missing: draw it first"):
        read_json(path, missing=": draw it first")
    with pytest.raises(FileNotFoundError):
        read_json(path)
    path.write_bytes(b"x" * 11)
    assert read_bounded(path, max_bytes=11, what="a note") == b"x" * 11
    with pytest.raises(ValueError, match="more than 10 bytes; not a note"):
        read_bounded(path, max_bytes=10, what="a note")
