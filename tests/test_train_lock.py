"""One process at a time trains in a folder; what a second one finds there stays as it is."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rank_processes import run_ranks, train_on
from training import World, assert_same, build, made, start, train

from staged.cli.main import main as cli
from staged.jobs import locks
from staged.settings import save_resolved
from train.__main__ import main
from train.job import Trainer
from train.ranks import Ranks
from train.run_lock import alone_in, alone_together
from train.settings import TrainSettings

ROOT = Path(__file__).parents[1]
WITHOUT_TORCH = """
import sys
from train.__main__ import main
try:
    main(sys.argv[1:])
except ValueError as error:
    assert "another process is training" in str(error)
    assert "torch" not in sys.modules, "it is refused in a second, or after half a minute"
else:
    raise AssertionError
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def undisturbed(world: World) -> dict[str, Any]:
    return train(world.settings(world.folder / "undisturbed"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wait_for(path: Path, process: Any) -> None:
    while not path.exists():
        assert process.is_alive()
        time.sleep(0.01)


def train_until(config: Path, step: int) -> None:
    """Be the command, and rest after a step whose state is on the disk."""
    real = Trainer._after_step

    def rest(trainer: Trainer, *args: Any) -> None:
        real(trainer, *args)
        if trainer.step == step:
            trainer.state.finish()
            config.with_suffix(".resting").touch()
            time.sleep(600)

    Trainer._after_step = rest  # type: ignore[method-assign]
    main([str(config)])


@contextmanager
def resting_at(step: int, settings: TrainSettings) -> Iterator[Any]:
    """A process that trains, and is killed in the end."""
    config = settings.out.with_suffix(".yaml")
    config.parent.mkdir(parents=True, exist_ok=True)
    save_resolved(settings, config)
    process = start(train_until, config, step)
    try:
        wait_for(config.with_suffix(".resting"), process)
        yield process
    finally:
        process.kill()
        process.join()


def test_a_second_command_changes_nothing_and_is_told_who_trains_before_it_reads_anything(
    world: World,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It loaded everything first, and wrote its settings over those of the running one."""
    job = world.settings(tmp_path / "out")
    free = ("keep_checkpoints=9", "checkpoint_every_steps=77", "max_minutes=5")
    with resting_at(3, job) as holder, monkeypatch.context() as patch:
        found = content(job.out)
        assert any(name.endswith("state.safetensors") for name in found), "no state that binds"
        patch.setattr(
            "train.run_model.open_to_train", lambda *_: pytest.fail("it reads the weights")
        )
        assert cli(["train", str(tmp_path / "out.yaml"), *free]) == 1
        said = capsys.readouterr().err
        assert f"another process is training in {job.out}; wait for it, end it, or choose" in said
        assert f"(it is process {holder.pid} on {socket.gethostname()})" in said
        command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "out.yaml"), *free]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        with pytest.raises(ValueError, match="another process is training"):
            Trainer(replace(job, keep_checkpoints=9))
        assert content(job.out) == found
    assert (job.out / "lock").is_file(), "it ended in order"
    assert_same(train(job), undisturbed)  # and the lock of a killed one holds nobody up
    assert not (job.out / "lock").exists()


def test_a_second_command_is_refused_while_the_first_has_no_state_yet(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = world.settings(tmp_path / "out")
    with resting_at(1, job):
        found = content(job.out)
        assert cli(["train", str(tmp_path / "out.yaml"), "pack_tokens=320"]) == 1
        assert "another process is training" in capsys.readouterr().err
        assert content(job.out) == found


def test_a_run_that_goes_on_is_exported_elsewhere_and_not_over_its_own_result(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = world.settings(tmp_path / "out")
    config, to = str(tmp_path / "out.yaml"), tmp_path / "so_far"
    with resting_at(3, job):
        found = content(job.out)
        assert cli(["train", config, "--export"]) == 1
        said = capsys.readouterr().err
        assert "another process is training" in said and "or give --to FOLDER" in said
        assert cli(["train", config, "keep_checkpoints=9", "--export", "--to", str(to)]) == 0
        assert f"checkpoint: {to}" in capsys.readouterr().out
        assert content(job.out) == found
    assert cli(["train", config, "--export"]) == 0
    assert content(job.out / "checkpoint").keys() == {
        name.replace(str(to), str(job.out / "checkpoint")) for name in content(to)
    }
    exported = (job.out / "checkpoint" / "ema.safetensors").read_bytes()
    assert exported == (to / "ema.safetensors").read_bytes()
    assert content(job.out).keys() - content(job.out / "checkpoint").keys() == found.keys() - {
        str(job.out / "lock")
    }


def begin_beside(ranks: Ranks, job: TrainSettings) -> None:
    with alone_together(job.out, ranks):
        pass


def test_all_ranks_are_told_who_trains(world: World, tmp_path: Path) -> None:
    job = world.settings(tmp_path / "out", packs_per_step=2)
    job.out.mkdir()
    with alone_in(job.out):
        for number, outcome in enumerate(run_ranks(tmp_path / "said", 2, begin_beside, job)):
            assert outcome is not None
            whose = "rank 0: " if number else ""
            text = f"{whose}another process is training in {job.out};"
            assert outcome["ValueError"].startswith(text)
            assert f"(it is process {os.getpid()} on " in outcome["ValueError"]
    train_on(2, replace(job, num_steps=1))


def test_who_looked_before_another_process_went_on_does_not_train_over_it(
    world: World, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    early, late = Trainer(world.settings(tmp_path)), Trainer(world.settings(tmp_path, seed=3))
    early.run()
    with pytest.raises(ValueError, match=r"another process has taken the run in .* to step 8; the"):
        late.run()
    assert_same(made(tmp_path), undisturbed)


def hold_alone(folder: Path) -> None:
    with alone_in(folder):
        if child := os.fork():
            (folder / "pid").write_text(str(child))
            (folder / "pid").rename(folder / "held")
        time.sleep(300)


def test_what_a_killed_process_forked_holds_nothing(world: World, tmp_path: Path) -> None:
    trainer = Trainer(world.settings(tmp_path, num_steps=1))
    process = start(hold_alone, tmp_path)
    wait_for(tmp_path / "held", process)
    with pytest.raises(ValueError, match="another process is training in"):
        trainer.run()
    process.kill()  # and its forked child lives on
    process.join()
    trainer.run()
    os.kill(int((tmp_path / "held").read_text()), signal.SIGKILL)


def try_it(folder: Path) -> None:
    try:
        with alone_in(folder):
            (folder / "taken").touch()
    except ValueError as error:
        (folder / "refused").write_text(str(error))


def test_a_process_that_takes_its_lock_once_more_keeps_it(tmp_path: Path) -> None:
    """POSIX gives up a process's locks on a file as soon as it closes any descriptor of it."""
    with alone_in(tmp_path / "run"):
        with alone_in(tmp_path / "run"):
            pass
        process = start(try_it, tmp_path / "run")
        process.join(60)
        assert "another process" in (tmp_path / "run" / "refused").read_text()
        (tmp_path / "run" / "refused").unlink()
    assert not (tmp_path / "run").exists(), "a folder that was made for nothing stays"


def test_a_lock_says_nothing_of_a_holder_that_its_file_does_not_name(tmp_path: Path) -> None:
    """One of an earlier version leaves it empty; and a file may hold anything."""
    for text in ("", "\x1b[2J on \n", "process x on y"):
        (tmp_path / "lock").write_text(text)
        file = os.open(tmp_path / "lock", os.O_RDWR)
        assert locks.try_whole(file, tmp_path / "lock")
        with pytest.raises(ValueError, match=r"^busy$"), locks.alone(tmp_path / "lock", "busy"):
            pass
        os.close(file)
