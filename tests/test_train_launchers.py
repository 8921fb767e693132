"""The commands that people start ranks with, as they stand in docs/launch.md."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training import World, build

from staged.model import checkpoint
from staged.settings import save_resolved

ROOT = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
    *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


def launch(launcher: list[str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*launcher, "-m", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    "launcher",
    [TORCHRUN, pytest.param(ACCELERATE, marks=pytest.mark.slow)],
    ids=["torchrun", "accelerate"],
)
def test_a_launcher_trains_and_one_rank_says_where_the_checkpoint_is(
    world: World, tmp_path: Path, launcher: list[str]
) -> None:
    job = world.settings(tmp_path / "out", num_steps=2, packs_per_step=2)
    save_resolved(job, tmp_path / "job.yaml")
    process = launch(launcher, str(tmp_path / "job.yaml"))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out == f"computing on cpu in float32\ncheckpoint: {job.out / 'checkpoint'}\n"
    assert sum("step 2/2" in line for line in err.splitlines()) == 1
    lines = [json.loads(line) for line in (job.out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    checkpoint.load(job.out / "checkpoint")
    assert len(list((job.out / "state" / "00000002").iterdir())) == 2


@pytest.mark.slow
def test_a_mistake_ends_all_with_its_message_and_no_traceback(world: World, tmp_path: Path) -> None:
    save_resolved(world.settings(tmp_path / "out"), tmp_path / "job.yaml")
    process = launch(TORCHRUN, str(tmp_path / "job.yaml"))
    _, err = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "packs_per_step=1 leaves 1 of 2 ranks without work" in err
    assert "job.py" not in err  # torchrun shows tracebacks of its own


@pytest.mark.slow
def test_ctrl_c_reaches_ranks_twice_and_still_saves(world: World, tmp_path: Path) -> None:
    """From the terminal, and from torchrun that passes on its own."""
    job = world.settings(
        tmp_path / "out", num_steps=100_000, packs_per_step=2, checkpoint_every_steps=100_000
    )
    save_resolved(job, tmp_path / "job.yaml")
    process = launch(TORCHRUN, str(tmp_path / "job.yaml"))
    log = tmp_path / "out" / "log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.is_file() and log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert "of 100000 is saved in" in err
    [state] = (job.out / "state").iterdir()
    assert int(state.name) == len(log.read_text().splitlines())


@pytest.mark.slow
def test_one_process_that_accelerate_starts_for_two_is_refused(
    world: World, tmp_path: Path
) -> None:
    save_resolved(world.settings(tmp_path / "out", packs_per_step=2), tmp_path / "job.yaml")
    on_cpu = ["--cpu" if word == "--multi_gpu" else word for word in ACCELERATE]
    process = launch(on_cpu, str(tmp_path / "job.yaml"))
    _, err = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "accelerate launch has started one process, not --num_processes" in err
    assert not (tmp_path / "out").exists()
