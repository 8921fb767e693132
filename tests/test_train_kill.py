"""`kill -9` anywhere, and the same command ends with the same bits."""

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from training import (
    SLOW,
    World,
    assert_same,
    build,
    made,
    moment,
    run_and_die,
    run_and_die_while_removing,
    run_quietly,
    start,
    train,
)

from staged.settings import save_resolved
from train.settings import TrainSettings


def test_every_moment_of_a_kill_is_one_that_comes() -> None:
    """Most are slow tests, which would not be missed at once."""
    texts = (path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named = re.findall(r'"((?:train|staged)\.[\w.]+:[\w.]+)", \d', " ".join(texts))
    assert len(set(named)) > 10
    assert [target for target in named if not hasattr(*moment(target))] == []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def undisturbed(world: World) -> dict[str, Any]:
    return train(world.settings(world.folder / "undisturbed"))


@pytest.mark.parametrize(
    ("target", "call", "when"),
    [
        pytest.param("train.encoded:EncodedFolder.trajectory", 7, "before", marks=SLOW),
        # Latents are in place, lengths are not.
        pytest.param("train.encoded:whole", 1, "before", marks=SLOW),
        pytest.param("train.job:claim", 1, "before", marks=SLOW),  # both are in place
        pytest.param("train.job:Trainer.train_step", 1, "before", marks=SLOW),
        # The weights have moved, they have not.
        pytest.param("train.ema:WeightAverage.update", 5, "before", marks=SLOW),
        # The line of the log is written.
        pytest.param("train.trackers:SummaryWriter.add_scalar", 40, "before", marks=SLOW),
        pytest.param("train.state_writer:write_safetensors", 2, "before", marks=SLOW),
        ("train.state_writer:write_safetensors", 2, "half"),
        pytest.param("staged.jobs.files:Path.rename", 2, "before", marks=SLOW),
        pytest.param("staged.jobs.files:Path.rename", 2, "after", marks=SLOW),
        pytest.param("staged.model.checkpoint:write_safetensors", 1, "half", marks=SLOW),
    ],
)
def test_a_run_killed_at_a_delicate_moment_continues_bit_for_bit(
    world: World, undisturbed: dict[str, Any], tmp_path: Path, target: str, call: int, when: str
) -> None:
    settings = world.settings(tmp_path)
    process = start(run_and_die, settings, target, call, when)
    process.join(300)
    assert process.exitcode == -signal.SIGKILL, "the moment never came"
    assert_same(train(settings), undisturbed)
    assert [str(path) for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".old")] == []


@SLOW
def test_a_run_killed_while_it_removes_an_old_state_continues_bit_for_bit(
    world: World, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    settings = world.settings(tmp_path)
    process = start(run_and_die_while_removing, settings)
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == [
        "00000003",
        "00000006",
        "00000008",
    ]
    assert_same(train(settings), undisturbed)


@pytest.mark.slow
def test_a_run_killed_at_random_three_times_ends_the_same(
    world: World, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    began = time.monotonic()
    process = start(run_quietly, world.settings(tmp_path / "timed"))
    process.join(300)
    whole_s = time.monotonic() - began
    settings = world.settings(tmp_path / "killed", checkpoint_every_steps=1)
    rng = random.Random(7)
    for _ in range(3):
        process = start(run_quietly, settings)
        process.join(rng.uniform(0, whole_s))
        process.kill()
        process.join()
    assert_same(train(settings), undisturbed)


@pytest.mark.slow
def test_the_command_killed_at_random_twenty_times_ends_the_same(
    world: World, tmp_path: Path
) -> None:
    """The real command from its start on: imports, data, steps, states, export."""

    def settings(out: Path) -> TrainSettings:
        return world.settings(out, num_steps=600, checkpoint_every_steps=5)

    def launch(out: Path) -> subprocess.Popen[bytes]:
        save_resolved(settings(out), tmp_path / "job.yaml")
        command = [sys.executable, "-m", "staged", "train", str(tmp_path / "job.yaml")]
        with (tmp_path / "errors").open("wb") as errors:
            return subprocess.Popen(command, stderr=errors)

    def wait_for_state(out: Path, after: int, process: subprocess.Popen[bytes]) -> None:
        while newest_state(out) <= after and process.poll() is None:
            time.sleep(0.02)

    began = time.monotonic()
    process = launch(tmp_path / "whole")
    wait_for_state(tmp_path / "whole", 0, process)
    start_s = time.monotonic() - began
    assert process.wait() == 0
    steps_s = time.monotonic() - began - start_s
    whole = train(settings(tmp_path / "whole"))

    rng, killed, finished = random.Random(20), [], 0
    while len(killed) < 20:
        out = tmp_path / f"killed{finished}"
        before, process = newest_state(out), launch(out)
        if rng.random() < 0.3:  # anywhere from its first instant on
            process_may_run_s = rng.uniform(0, start_s)
        else:  # some time after it has gone on, so that it comes to an end
            wait_for_state(out, before, process)
            process_may_run_s = rng.uniform(0, steps_s / 10)
        try:
            assert process.wait(process_may_run_s) == 0, (tmp_path / "errors").read_text()
            assert_same(made(out), whole)
            finished += 1
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed.append(newest_state(out))
    print(f"start {start_s:.0f} s, steps {steps_s:.0f} s; killed with states of steps {killed}")
    assert_same(train(settings(out)), whole)


def newest_state(out: Path) -> int:
    return max([0, *(int(path.name) for path in out.glob("state/[0-9]*"))])
