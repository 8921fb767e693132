"""Ranks that are killed, come back, or come back in another number."""

import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rank_processes import as_rank, free_port, run_ranks, run_trainer, train_on, wait_for_all
from test_train_sharded import assert_alike
from training import SLOW, World, assert_same, build, die_at, made, start, train

from train.job import Trainer
from train.ranks import Ranks
from train.settings import ParallelSettings, TrainSettings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


def settings(world: World, out: Path, **changes: Any) -> TrainSettings:
    return world.settings(out, cache=world.folder / "cache", packs_per_step=3, **changes)


@pytest.fixture(scope="module")
def undisturbed(world: World) -> dict[str, Any]:
    """Of two ranks."""
    job = settings(world, world.folder / "undisturbed")
    train_on(2, job)
    return made(job.out)


def test_two_ranks_write_one_state_of_two_files_and_no_more(
    world: World, undisturbed: dict[str, Any]
) -> None:
    out = world.folder / "undisturbed"
    assert sorted(str(path.relative_to(out / "state")) for path in out.glob("state/*/*")) == [
        f"{step}/state-0000{rank}-of-00002.safetensors"
        for step in ("00000006", "00000008")
        for rank in (1, 2)
    ]
    again = settings(world, world.folder / "again")
    train_on(2, again)
    assert_same(made(again.out), undisturbed)


def die_on(ranks: Ranks, job: TrainSettings, victim: int, target: str, call: int, when: str) -> int:
    if ranks.number == victim:
        die_at(target, call, when)
    return run_trainer(ranks, job)


@pytest.mark.parametrize(
    ("victim", "target", "call", "when"),
    [
        pytest.param(1, "train.job:Trainer.train_step", 5, "before", marks=SLOW),
        (1, "train.state_writer:write_safetensors", 2, "half"),
        pytest.param(0, "train.ema:WeightAverage.update", 5, "before", marks=SLOW),
        pytest.param(1, "train.state_writer:write_safetensors", 2, "before", marks=SLOW),
        pytest.param(0, "staged.jobs.files:Path.rename", 2, "before", marks=SLOW),
        pytest.param(0, "staged.jobs.files:Path.rename", 2, "after", marks=SLOW),
        pytest.param(0, "staged.model.checkpoint:write_safetensors", 1, "half", marks=SLOW),
    ],
)
def test_a_rank_killed_at_a_delicate_moment_ends_all_and_the_run_continues_bit_for_bit(
    world: World,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    victim: int,
    target: str,
    call: int,
    when: str,
) -> None:
    job = settings(world, tmp_path / "out")
    outcomes = run_ranks(tmp_path / "said", 2, die_on, job, victim, target, call, when)
    assert outcomes[victim] is None
    left = outcomes[1 - victim]
    assert left is not None and "has lost another process of this run" in left["OSError"]
    train_on(2, job)
    assert_same(made(job.out), undisturbed)
    assert [str(path) for path in job.out.rglob("*") if path.suffix in (".tmp", ".old")] == []


def stop_after(ranks: Ranks, job: TrainSettings, steps: int) -> int:
    """Leave as after Ctrl-C on one rank alone."""
    trainer = Trainer(job, ranks)
    real = trainer.train_step

    def train_step(*packs: Any) -> dict[str, float]:
        if trainer.step + 1 == steps and ranks.number == ranks.world_size - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*packs)

    trainer.train_step = train_step  # type: ignore[method-assign]
    try:
        trainer.run()
    except KeyboardInterrupt:
        return trainer.step
    raise AssertionError


@SLOW
def test_a_signal_to_one_rank_stops_all_after_the_same_step(
    world: World, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    job = settings(world, tmp_path / "out")
    outcomes = run_ranks(tmp_path / "said", 2, stop_after, job, 5)
    assert outcomes == [{"returned": 5}] * 2
    assert [path.name for path in sorted((job.out / "state").iterdir())] == ["00000003", "00000005"]
    train_on(2, job)
    assert_same(made(job.out), undisturbed)


@pytest.mark.parametrize(
    ("before", "after", "replicas"),
    [
        (3, 2, 1),
        *(
            pytest.param(*ranks, marks=SLOW)
            for ranks in [(1, 2, 1), (2, 1, 1), (1, 4, 2), (4, 3, 1)]
        ),
    ],
)
def test_another_number_of_ranks_goes_on_with_the_same_packs(
    world: World, tmp_path: Path, before: int, after: int, replicas: int
) -> None:
    """Matrices of three rows on four ranks, replicated ones, a plain file: all are one state."""
    whole, parted = settings(world, tmp_path / "whole"), settings(world, tmp_path / "parted")
    whole, parted = (replace_packs(job) for job in (whole, parted))
    train(whole)
    if before == 1:
        stopped = start(stop_alone, parted)
        wait_for_all([stopped])
        assert stopped.exitcode == 0
    else:
        outcomes = run_ranks(tmp_path / "said", before, stop_after, parted, 4)
        assert outcomes == [{"returned": 4}] * before
    if after == 1:
        train(parted)
    else:
        train_on(after, with_replicas(parted, replicas))
    assert_alike(parted.out, whole.out)


def replace_packs(job: TrainSettings) -> TrainSettings:
    return replace(job, packs_per_step=4)


def with_replicas(job: TrainSettings, replicas: int) -> TrainSettings:
    return replace(job, parallel=ParallelSettings(replicas=replicas))


def stop_alone(job: TrainSettings) -> None:
    assert stop_after(Ranks(), job, 4) == 4


@pytest.mark.slow
def test_ranks_killed_at_random_fifty_times_end_the_same(world: World, tmp_path: Path) -> None:
    """One of them or all at once, from their first instant on; several runs come to their end."""

    def job(out: Path) -> TrainSettings:
        return settings(world, out, num_steps=60, checkpoint_every_steps=2)

    began = time.monotonic()
    train_on(2, job(tmp_path / "whole"))
    whole_s = time.monotonic() - began
    whole = made(tmp_path / "whole")
    # Whoever waits for one that was killed before they met waits as long, and torch asks once more.
    parallel = ParallelSettings(join_timeout_s=100)
    rng, killed, finished = random.Random(50), 0, 0
    while killed < 50:
        out = tmp_path / f"killed{finished}"
        port = free_port()
        (tmp_path / "said").mkdir(exist_ok=True)
        processes = [
            start(as_rank, n, 2, port, tmp_path / "said", parallel, run_trainer, job(out))
            for n in range(2)
        ]
        processes[0].join(rng.uniform(0, whole_s))
        victims = rng.choice([processes[:1], processes[1:], processes])
        hit = [process.kill() for process in victims if process.is_alive()]
        wait_for_all(processes)
        if hit:
            killed += 1
        else:
            assert [process.exitcode for process in processes] == [0, 0]
            assert_same(made(out), whole)
            finished += 1
    train_on(2, job(out))
    assert_same(made(out), whole)
    print(f"a run takes {whole_s:.0f} s; {killed} kills, {finished + 1} runs to their end")
