"""Whatever goes wrong on one rank is named on all of them, and the last good state serves."""

import os
import resource
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from rank_processes import run_ranks, run_trainer, train_on
from safetensors.torch import load_file, save_file
from training import SLOW, World, assert_same, build, made

from staged.model.loss import TokenLosses
from train import run_folder
from train.job import Trainer
from train.ranks import Ranks
from train.settings import OptimizerSettings, ParallelSettings, Subset, TrainSettings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


def settings(world: World, out: Path, **changes: Any) -> TrainSettings:
    changes = {"cache": world.folder / "cache", "packs_per_step": 3, **changes}
    return world.settings(out, **changes)


@pytest.fixture(scope="module")
def undisturbed(world: World) -> dict[str, Any]:
    """Of two ranks."""
    job = settings(world, world.folder / "undisturbed")
    train_on(2, job)
    return made(job.out)


def errors(outcomes: list[dict[str, Any] | None], kind: str) -> list[str]:
    """What every rank raised, without the name of the rank that did first."""
    assert all(outcome is not None and kind in outcome for outcome in outcomes), outcomes
    return [outcome[kind] for outcome in outcomes if outcome is not None]


def states(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "state").iterdir())


def meet_nan(ranks: Ranks, job: TrainSettings, where: str) -> None:
    """In the second pack of rank 1 at step 4, which is the last of three, or in its gradient."""
    trainer = Trainer(job, ranks)
    real, calls = trainer._forward, 0

    def forward(pack: Any) -> TokenLosses:
        nonlocal calls
        calls += 1
        losses = real(pack)
        if trainer.step == 4 and ranks.number == 1 and calls % 2 == 1:
            if where == "loss":
                return losses._replace(mse=losses.mse * torch.nan, ce=losses.ce * torch.nan)
            losses.ce.register_hook(lambda gradient: gradient * torch.nan)
        return losses

    trainer._forward = forward  # type: ignore[method-assign]
    trainer.run()


@pytest.mark.parametrize("where", ["loss", pytest.param("gradient norm", marks=SLOW)])
def test_a_sample_whose_numbers_are_not_finite_is_named_by_all(
    world: World, undisturbed: dict[str, Any], tmp_path: Path, where: str
) -> None:
    job = settings(world, tmp_path / "out")
    said = errors(run_ranks(tmp_path / "said", 2, meet_nan, job, where), "ValueError")
    plan = Trainer(settings(world, tmp_path / "plan")).plan
    packs = [13] if where == "loss" else [12, 13, 14]
    samples = [f"{world.data}: s{sample:03d}" for n in packs for sample, _ in plan.pack(n)]
    for text in said:
        assert f"the {where} is nan at step 4" in text
        assert f"the pack holds {', '.join(samples[:4])}" in text
    assert states(job.out) == ["00000003"]
    train_on(2, job)
    assert_same(made(job.out), undisturbed)


def read_badly(ranks: Ranks, job: TrainSettings) -> None:
    """A shard is cut off while the run goes on, as by a disk that fails."""
    trainer = Trainer(job, ranks)
    if ranks.is_first:
        for shard in Path(job.data[0].path).glob("*.tar"):
            with shard.open("r+b") as file:
                file.truncate(shard.stat().st_size // 2)
    ranks.gather(0)
    trainer.run()


def test_a_shard_that_is_cut_off_is_named_by_all(
    world: World, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    data = shutil.copytree(world.data, tmp_path / "data")
    job = settings(world, tmp_path / "out", data=(Subset(path=data),))
    outcomes = run_ranks(tmp_path / "said", 2, read_badly, job)
    for text in errors(outcomes, "ValueError"):
        assert ".tar, sample 's" in text and "truncated" in text
    shutil.rmtree(data)
    shutil.copytree(world.data, data)
    train_on(2, job)
    assert_same(made(job.out), undisturbed)


def save_to_a_full_disk(ranks: Ranks, job: TrainSettings, from_step: int) -> None:
    """A limit on the size of files fails a write as a full disk does."""
    trainer = Trainer(job, ranks)
    real = trainer.train_step

    def train_step(*packs: Any) -> dict[str, float]:
        if trainer.step == from_step and ranks.number == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        return real(*packs)

    trainer.train_step = train_step  # type: ignore[method-assign]
    trainer.run()


@pytest.mark.parametrize("from_step", [pytest.param(4, marks=SLOW), 7])
def test_a_full_disk_on_one_rank_is_told_by_all_and_keeps_the_last_state(
    world: World, undisturbed: dict[str, Any], tmp_path: Path, from_step: int
) -> None:
    """While the run goes on, and at its end."""
    job = settings(world, tmp_path / "out")
    outcomes = run_ranks(tmp_path / "said", 2, save_to_a_full_disk, job, from_step)
    for text in errors(outcomes, "OSError"):
        assert f"cannot write the state of step {6 if from_step == 4 else 8} (" in text
        assert "rank 1: [Errno 27] File too large" in text
        assert "Earlier states are kept" in text
    assert states(job.out) == (["00000003"] if from_step == 4 else ["00000003", "00000006"])
    train_on(2, job)
    assert_same(made(job.out), undisturbed)


def start_differently(ranks: Ranks, job: TrainSettings, other: TrainSettings) -> None:
    run_folder._PATIENCE_S = 0.1
    run_trainer(ranks, job if ranks.is_first else other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optimizer": OptimizerSettings(lr=1.0)},
            "rank 1 was started with other settings than rank 0: optimizer.",
        ),
        ({"out": Path("elsewhere")}, "`out` must be a folder that all machines of a run share"),
        ({"data": (Subset(path=Path("missing")),)}, "data folder missing does not exist"),
    ],
)
def test_ranks_that_are_started_differently_are_refused_by_all(
    world: World, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    job = settings(world, tmp_path / "out")
    other = replace(job, **changes)
    if "out" in changes:
        other = replace(job, out=tmp_path / "elsewhere")
    outcomes = run_ranks(tmp_path / "said", 2, start_differently, job, other)
    for text in errors(outcomes, "ValueError"):
        assert message in text
    if "out" in changes:
        assert not list(job.out.iterdir()), "data were read before it was found"


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"packs_per_step": 1}, "ValueError", "packs_per_step=1 leaves 1 of 2 ranks without work"),
        (
            {"parallel": ParallelSettings(replicas=3)},
            "ValueError",
            "parallel.replicas is 3, which does not divide 2 ranks; give one of 1, 2",
        ),
        ({"pack_tokens": 50}, "ValueError", "samples exceed pack_tokens=50"),
        ({"out": "file/out"}, "OSError", "is a file; name a folder"),
        ({"init": "foreign"}, "ValueError", "1 unexpected: language_model.model.layers.7"),
    ],
)
def test_what_cannot_run_is_refused_by_all(
    world: World, tmp_path: Path, changes: dict[str, Any], kind: str, message: str
) -> None:
    (tmp_path / "file").write_text("")
    if "out" in changes:
        changes = {"out": tmp_path / changes["out"]}
    if "init" in changes:
        shutil.copytree(world.init, tmp_path / "foreign")
        changes = {"init": str(tmp_path / "foreign")}
        weights = tmp_path / "foreign" / "ema.safetensors"
        name = "language_model.model.layers.7.input_layernorm.weight"
        save_file(load_file(weights) | {name: torch.ones(32)}, weights)
    job = replace(settings(world, tmp_path / "out"), **changes)
    for text in errors(run_ranks(tmp_path / "said", 2, run_trainer, job), kind):
        assert message in text


@SLOW
def test_a_state_that_lacks_the_file_of_a_rank_is_refused_by_all(
    world: World, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    job = settings(world, tmp_path / "out")
    shutil.copytree(world.folder / "undisturbed", job.out)
    newest = job.out / "state" / "00000008"
    (newest / "state-00002-of-00002.safetensors").unlink()
    for text in errors(run_ranks(tmp_path / "said", 2, run_trainer, job), "ValueError"):
        assert f"{newest} is damaged or of another model (it has files state-00001-of-" in text
        assert "remove it to continue from an older state" in text
    shutil.rmtree(newest)
    train_on(2, job)
    assert_same(made(job.out), undisturbed)


def wait_for_rank_1(ranks: Ranks, where: str) -> str:
    """It is longer about its work than ranks wait for one another within a step."""
    if ranks.number == 1:
        time.sleep(4.0)
    match where:
        case "step":
            ranks.gather(None)
        case "state":
            dist.all_gather_object([None, None], None, group=ranks.background_group)
        case "meeting":
            ranks.meet()
    return "met"


@pytest.mark.parametrize("where", ["step", pytest.param("state", marks=SLOW), "meeting"])
def test_only_within_a_step_or_a_state_ranks_lose_patience(where: str, tmp_path: Path) -> None:
    impatient = ParallelSettings(silence_timeout_s=2.0)
    said = run_ranks(tmp_path / "said", 2, wait_for_rank_1, where, settings=impatient)
    if where == "meeting":
        assert said == [{"returned": "met"}] * 2
    else:
        assert "2 has lost another process" in errors(said[:1], "OSError")[0]


def encode_on_rank_1(ranks: Ranks, act: str) -> str:
    """Its machine has a cache of its own: there is work when rank 0 has done."""

    def read() -> str:
        if ranks.number == 0 and act == "first encodes":
            time.sleep(4.0)
        if ranks.number == 1:
            if act == "fails":
                raise ValueError("data/x: sample s003 is bad")
            time.sleep(4.0)
            if act == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
        return f"opened by {ranks.number}"

    opened = ranks.first_opens(read)
    ranks.require_same("the data", "fingerprint")
    return opened


@pytest.mark.parametrize(
    "act", ["encodes", pytest.param("first encodes", marks=SLOW), "fails", "dies"]
)
def test_ranks_wait_for_one_that_encodes_and_miss_one_that_is_lost_then(
    act: str, tmp_path: Path
) -> None:
    """A machine with a cache of its own counted as silent when it encoded for long."""
    impatient = ParallelSettings(silence_timeout_s=1.0)
    said = run_ranks(tmp_path / "said", 3, encode_on_rank_1, act, settings=impatient)
    if act == "fails":
        bad = "data/x: sample s003 is bad"
        assert errors(said, "ValueError") == [f"rank 1: {bad}", bad, f"rank 1: {bad}"]
    elif act == "dies":
        assert said[1] is None
        for text in errors([said[0], said[2]], "OSError"):
            assert "has lost another process of this run" in text
    else:
        assert said == [{"returned": f"opened by {number}"} for number in range(3)]
