"""Which state of a run is best may be said by a command that draws with it."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rank_processes import train_on
from test_train_validation import SLOW, curve, held_out, kept, many_packs, worse
from training import World, build, train

from train.scorer import ScorerError, score
from train.settings import ScorerSettings, TrainSettings, ValidationSettings

GRADER = """
import hashlib, json, sys
from pathlib import Path
found = hashlib.sha256()
for path in sorted(Path(sys.argv[1]).glob("*.safetensors")):
    found.update(path.read_bytes())
assert not Path(sys.argv[2]).exists() and Path(sys.argv[2]).parent.is_dir()
calls = Path(sys.argv[3])
calls.open("a").write("x")
if len(calls.read_text()) in map(int, sys.argv[4:]):
    sys.exit("the grader is tired")
print("drawing")
print(json.dumps({"all": {"share": int(found.hexdigest()[:6], 16) / 2**24}}))
"""


def grade_of(folder: Path) -> float:
    """What the grader says of a checkpoint."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        found.update(path.read_bytes())
    return int(found.hexdigest()[:6], 16) / 2**24


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


def scored(world: World, folder: Path, *failing: int, **changes: Any) -> TrainSettings:
    (folder / "grader.py").write_text(GRADER)
    words = [sys.executable, str(folder / "grader.py"), "{checkpoint}", "{out}"]
    words += [str(folder / "calls"), *map(str, failing)]
    scorer = ScorerSettings(command=tuple(words), figure="all.share", **changes)
    validation = ValidationSettings(
        data=(held_out(world),), every_steps=2, keep_best=True, scorer=scorer
    )
    return worse(world, folder / "out", validation=validation)


@pytest.mark.parametrize("larger", [True, pytest.param(False, marks=SLOW)])
def test_the_best_score_decides(larger: bool, world: World, tmp_path: Path) -> None:
    job = scored(world, tmp_path, larger_is_better=larger)
    train(job)
    found = {step: line["validation/score"] for step, line in curve(job.out).items()}
    assert list(found) == [0, 2, 4, 6]
    best = (max if larger else min)((2, 4, 6), key=lambda step: found[step])
    assert kept(job.out) == sorted({best, 6})
    assert grade_of(job.out / "best") == found[best]
    assert grade_of(job.out / "checkpoint") == found[6]
    assert not [path.name for path in job.out.iterdir() if "scored" in path.name]


def test_a_grader_that_fails_is_told_and_costs_nothing(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = scored(world, tmp_path, 2, 3)
    train(job)
    found = {step: line.get("validation/score") for step, line in curve(job.out).items()}
    assert [value is None for value in found.values()] == [False, True, True, False]
    assert curve(job.out)[4]["validation/loss"] > 0
    said = capsys.readouterr().err
    assert "step 2: not scored: " in said and "ended with 1: the grader is tired" in said
    assert kept(job.out) == [6] and grade_of(job.out / "best") == found[6]


def test_before_the_first_step_it_is_an_error(world: World, tmp_path: Path) -> None:
    with pytest.raises(ScorerError, match="the grader is tired"):
        train(scored(world, tmp_path, 1))
    assert not [path.name for path in (tmp_path / "out").iterdir() if "scored" in path.name]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["no-such-command"], "no-such-command: No such file"),
        (["sh", "-c", "exit 3", "KEY=hidden"], "^sh ended with 3: $"),
        (["sh", "-c", "sleep 60"], "not done after 0.001 minutes"),
        (["sh", "-c", "echo done"], "its last line is no JSON: 'done'; give --json"),
        (["sh", "-c", "echo '{\"a\": 1}'"], "no number at .score."),
        (["sh", "-c", "echo '{\"score\": null}'"], "no number at .score."),
        (["sh", "-c", "echo '{\"score\": true}'"], "no number at .score."),
        (["sh", "-c", "echo '{\"score\": NaN}'"], "no number at .score."),
    ],
)
def test_what_gives_no_score_says_why(words: list[str], told: str, tmp_path: Path) -> None:
    minutes = 0.001 if "sleep 60" in words else 1.0
    settings = ScorerSettings(command=(*words, "{checkpoint}"), figure="score", max_minutes=minutes)
    with pytest.raises(ScorerError, match=told):
        score(settings, tmp_path / "checkpoint")
    assert not list(tmp_path.iterdir())


def test_a_command_is_told_of_no_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would do the share of one."""
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "ROLE_WORLD_SIZE": "2"}
    ranks |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "none"}
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RANKING", "kept")
    code = (
        "import os; found = [name for name in os.environ if name.startswith('TORCHELASTIC_')\n"
        f" or name in {set(ranks)!r}]; assert not found, found\n"
        "print('{\"score\": ' + str(len(os.environ['RANKING'])) + '}')"
    )
    command = (sys.executable, "-c", code, "{checkpoint}")
    settings = ScorerSettings(command=command, figure="score")
    assert score(settings, tmp_path / "checkpoint") == 4


def test_a_command_draws_with_the_model() -> None:
    with pytest.raises(ValueError, match="name a command and, among its words"):
        ScorerSettings(command=("staged", "eval"))


@SLOW
def test_ranks_are_scored_once(world: World, tmp_path: Path) -> None:
    job = many_packs(scored(world, tmp_path))
    train_on(2, job)
    assert len((tmp_path / "calls").read_text()) == 4
    found = {step: line["validation/score"] for step, line in curve(job.out).items()}
    best = max((2, 4, 6), key=lambda step: found[step])
    assert kept(job.out) == sorted({best, 6}) and json.dumps(found)
