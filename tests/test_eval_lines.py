"""Lines of scored samples: what tables are made of, read back as it was, or refused by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.miniature import report
from eval.miniature.line import SampleScore, ScoredPicture, read_scores
from staged.strict_json import dumps

SCORE = SampleScore(
    key="colors-0000-000",
    task="colors",
    prompt="a photo of a red circle",
    seed=7,
    correct=True,
    exact=False,
    reasons=("the blue star should not be there",),
    kinds=("surplus",),
    pictures=(
        ScoredPicture(round=1, num_flow_steps=20, correct=False, exact=False, by_plan=True),
        ScoredPicture(
            round=2, num_flow_steps=40, correct=True, exact=False, by_plan=True, follows_plan=True
        ),
    ),
    num_flow_steps=40,
    text_tokens=80,
    planned=True,
    process=(("plan/right", 1.0), ("untouched/kept", None), ("untouched/shift px", 2.5)),
)
NOTHING = SampleScore(
    key="a", task="position", prompt="b", seed=0, correct=None, exact=None, reasons=("not drawn",)
)
SEARCHED = SampleScore(
    key="c", task="position", prompt="b", seed=0, correct=False, exact=False, reasons=("x",),
    candidates=(False, None, True),
)  # fmt: skip


def test_lines_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    scores = [SCORE, NOTHING, SEARCHED]
    path.write_text("".join(dumps(score.as_dict()) + "\n" for score in scores))
    assert list(read_scores(path)) == scores


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in SCORE.as_dict().items() if key != name}


def changed(**values: Any) -> dict[str, Any]:
    return {**SCORE.as_dict(), **values}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (without("seed"), r"samples\.jsonl:1: missing key 'seed'"),
        (without("process"), r"an older version wrote it.*--out .* --score-only"),
        (changed(task="colours"), r"task: 'colours' is none of the miniature's"),
        (changed(correct=1), r"correct: expected bool, got int"),
        (changed(reasons=[3]), r"reasons"),
        (changed(candidates=[1]), r"candidates: expected true, false or null"),
        (changed(num_flow_steps=-1), r"num_flow_steps: -1 is below 0"),
        (changed(pictures=[{}]), r"pictures: missing key 'round'"),
        (
            changed(pictures=[{**SCORE.as_dict()["pictures"][0], "round": 0}]),
            r"pictures\.round: 0 is below 1",
        ),
        (changed(process=[["plan/right"]]), r"process: .*expected a name and a value"),
        (changed(process=[["plan/right", "1"]]), r"'plan/right' has '1'; expected a number"),
    ],
)
def test_what_is_no_such_line_is_refused_by_place(
    line: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(dumps(line) + "\n")
    with pytest.raises(ValueError, match=message):
        list(read_scores(path))


def test_a_better_choice_is_worth_no_less_than_the_choice_of_unequal_tasks() -> None:
    """It was the share of all images: less than the mean of tasks, which is how choices score."""
    few = [replace(SEARCHED, task="counting", prompt="a", correct=True, candidates=(True, False))]
    many = [
        replace(SEARCHED, task="colors", prompt=prompt, correct=False, candidates=(False, None))
        for prompt in "bcd"
    ]
    found = report._searches([*few, *many])
    assert found["search/any correct"].value == 0.5
    assert found["search/chosen when any is correct"].value == 1
