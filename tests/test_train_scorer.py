"""Which state of a run is best may be said by a command that draws with it."""

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rank_processes import QUICK, as_rank, free_port, run_trainer, train_on, wait_for_all
from test_train_validation import SLOW, curve, held_out, kept, many_packs, worse
from training import World, assert_same, build, run_quietly, start, train

from train.__main__ import main
from train.scorer import ScorerError, score
from train.settings import ScorerSettings, TrainSettings, ValidationSettings

GRADER = """
import hashlib, json, sys, time
from pathlib import Path
found = hashlib.sha256()
for path in sorted(Path(sys.argv[1]).glob("*.safetensors")):
    found.update(path.read_bytes())
assert not Path(sys.argv[2]).exists() and Path(sys.argv[2]).parent.is_dir()
calls = Path(sys.argv[3])
calls.open("a").write("x")
while calls.with_name(f"hold{len(calls.read_text())}").exists():
    time.sleep(0.05)
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
    settings, to = str(job.out / "settings.yaml"), tmp_path / "to"
    assert main([settings, "data=[{path: gone}]", "--export-best", "--to", str(to)]) == 0
    assert grade_of(to) == found[best]
    assert grade_of(job.out / "checkpoint") == found[6]
    assert not leftovers(job.out)


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


def until_scored(folder: Path, call: int) -> None:
    """Wait until the grader stands at its call, or fail."""
    calls, deadline = folder / "calls", time.monotonic() + 300
    while not (calls.is_file() and len(calls.read_text()) == call):
        assert time.monotonic() < deadline, "the grader was never called"
        time.sleep(0.05)


def leftovers(out: Path) -> list[str]:
    return [path.name for path in out.iterdir() if "scored" in path.name]


@pytest.fixture(scope="module")
def undisturbed(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return without_state(train(scored(world, tmp_path_factory.mktemp("undisturbed"))))


def without_state(made: dict[str, Any]) -> dict[str, Any]:
    """Its metadata know the grader by its path."""
    return {name: content for name, content in made.items() if name != "state.safetensors"}


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=SLOW), signal.SIGKILL])
@pytest.mark.parametrize("call", [3, pytest.param(4, marks=SLOW)])  # 4 is after the last step
def test_a_signal_while_the_grader_draws_loses_its_work_alone(
    world: World, undisturbed: dict[str, Any], tmp_path: Path, number: int, call: int
) -> None:
    job, hold = scored(world, tmp_path), tmp_path / f"hold{call}"
    hold.touch()
    process = start(run_quietly, job)
    until_scored(tmp_path, call)
    step = 2 * (call - 1)
    assert step in kept(job.out)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    assert bool(leftovers(job.out)) == (number == signal.SIGKILL)
    assert "validation/score" not in curve(job.out)[step]
    hold.unlink()
    assert_same(without_state(train(job)), undisturbed)
    assert len((tmp_path / "calls").read_text()) == 5
    assert not leftovers(job.out)


def test_a_kill_between_a_score_and_its_line_tells_it_once(
    world: World, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    job = scored(world, tmp_path)
    assert_same(without_state(train(job)), undisturbed)
    log = job.out / "log.jsonl"
    *lines, last = log.read_text().splitlines(keepends=True)
    assert "validation/score" in last
    log.write_text("".join(lines))
    train(job)
    assert curve(job.out)[6]["validation/score"] == json.loads(last)["validation/score"]
    assert len((tmp_path / "calls").read_text()) == 4


def test_the_score_of_an_earlier_run_is_not_taken_up(world: World, tmp_path: Path) -> None:
    job = scored(world, tmp_path)
    train(job)
    shutil.rmtree(job.out / "state")
    kept_score = json.loads((job.out / "score.json").read_text())
    (job.out / "score.json").write_text(json.dumps({**kept_score, "step": 2, "score": 7.0}))
    train(job)
    assert curve(job.out)[2]["validation/score"] < 1
    assert len((tmp_path / "calls").read_text()) == 8
    # One that cannot be read is named.
    (job.out / "score.json").write_text('{"step": 6}')
    with pytest.raises(ValueError, match=r"score\.json: missing key 'score'"):
        train(job)


def test_ranks_hear_a_signal_that_came_to_another(world: World, tmp_path: Path) -> None:
    job = many_packs(scored(world, tmp_path))
    hold = tmp_path / "hold2"
    hold.touch()
    said, port = tmp_path / "said", free_port()
    said.mkdir()
    ranks = [start(as_rank, n, 2, port, said, QUICK, run_trainer, job) for n in range(2)]
    stopper = threading.Thread(
        target=lambda: (until_scored(tmp_path, 2), os.kill(ranks[1].pid, signal.SIGTERM))
    )
    stopper.start()
    wait_for_all(ranks)
    stopper.join()
    assert [process.exitcode for process in ranks] == [143, 143]
    assert kept(job.out) == [2] and not leftovers(job.out)


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
