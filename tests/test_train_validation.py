"""Losses on held-out data: the same numbers however a run is shared, seeded, or interrupted."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_processes import run_ranks, train_on
from training import (
    ALL_KINDS,
    SLOW,
    World,
    assert_same,
    build,
    die_at,
    made,
    start,
    train,
    write_data,
)

from staged.model import checkpoint
from train.__main__ import main
from train.job import Trainer
from train.ranks import Ranks
from train.run_log import Silence
from train.settings import OptimizerSettings, ParallelSettings, TrainSettings, ValidationSettings
from train.validation import Best


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = build(tmp_path_factory.mktemp("world"))
    held_out(world)
    return world


def held_out(world: World) -> Path:
    folder = world.folder / "held_out"
    if not folder.is_dir():
        write_data(folder, [kind(seed) for seed in (100, 110) for kind in ALL_KINDS])
    return folder


def settings(world: World, out: Path, **changes: Any) -> TrainSettings:
    validation = ValidationSettings(data=(held_out(world),), every_steps=2, keep_best=True)
    given = {"validation": validation, "cache": world.folder / "cache", **changes}
    return world.settings(out, **given)


def worse(world: World, out: Path, **changes: Any) -> TrainSettings:
    """Six steps at a rate that only rises: the loss is 21 after the fourth, 200 at the end."""
    optimizer = OptimizerSettings(lr=2.0, warmup_steps=6, min_lr_ratio=1.0, ema_decay=0.5)
    changes = {"num_steps": 6, "optimizer": optimizer, "keep_checkpoints": 1, **changes}
    return settings(world, out, **changes)


def curve(out: Path) -> dict[int, dict[str, float]]:
    """Of the log, what was held out, by step."""
    found: dict[int, dict[str, float]] = {}
    for line in map(json.loads, (out / "log.jsonl").read_text().splitlines()):
        figures = {k: v for k, v in line.items() if k.startswith("validation/")}
        known = found.setdefault(line["step"], {})
        assert not known.keys() & figures.keys(), f"step {line['step']} is told twice"
        known |= figures
    return {step: figures for step, figures in found.items() if figures}


def kept(out: Path) -> list[int]:
    return sorted(int(path.name) for path in (out / "state").iterdir())


def first_measurement(job: TrainSettings) -> dict[str, float]:
    return Trainer(job).validate()


def test_losses_are_told_by_task_before_the_first_step_and_as_often_as_asked(
    world: World, tmp_path: Path
) -> None:
    train(settings(world, tmp_path, num_steps=5))
    found = curve(tmp_path)
    assert list(found) == [0, 2, 4, 5]
    tasks = ("one_shot", "edit", "understanding", "staged", "plan_sketch")
    assert found[0].keys() == {
        *(f"validation/{name}" for name in ("loss", "ce", "mse")),
        *(f"validation/ce/{task}" for task in tasks),
        *(f"validation/mse/{task}" for task in tasks if task != "understanding"),
    }
    for line in found.values():
        weighted = 0.25 * line["validation/ce"] + line["validation/mse"]
        assert line["validation/loss"] == pytest.approx(weighted, rel=1e-12)
    assert found[5]["validation/loss"] < found[0]["validation/loss"]
    assert found[0] == first_measurement(settings(world, tmp_path / "again"))


def test_runs_of_other_seeds_packs_and_times_are_measured_on_the_same(
    world: World, tmp_path: Path
) -> None:
    plain = first_measurement(settings(world, tmp_path / "plain"))
    for name, changes in {
        "seed": {"seed": 7},
        "packs": {"pack_tokens": 900, "packs_per_step": 2},
        "times": {"timestep_shift": 3.0, "noised_copies": 2, "pack_tokens": 400},
    }.items():
        other = first_measurement(settings(world, tmp_path / name, **changes))
        assert other == pytest.approx(plain, rel=1e-5), name
    copies = ValidationSettings(data=(held_out(world),), noised_copies=2)
    other = first_measurement(settings(world, tmp_path / "copies", validation=copies))
    assert other["validation/mse"] != pytest.approx(plain["validation/mse"], rel=1e-5)


def test_measuring_changes_nothing_that_is_learned(world: World, tmp_path: Path) -> None:
    with_it = settings(world, tmp_path / "with", num_steps=4)
    without = replace(with_it, out=tmp_path / "without", validation=None)
    train(with_it)
    train(without)
    weights = [
        dict(checkpoint.load(job.out / "checkpoint").model.named_parameters())
        for job in (with_it, without)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_best_state_stays_and_is_exported(world: World, tmp_path: Path) -> None:
    job = worse(world, tmp_path / "out")
    train(job)
    losses = {step: line["validation/loss"] for step, line in curve(job.out).items() if step}
    best = min(losses, key=lambda step: losses[step])
    assert best < 6 and kept(job.out) == [best, 6], losses
    weights = dict(checkpoint.load(job.out / "best").model.named_parameters())
    found = first_measurement(replace(job, out=tmp_path / "new", init=str(job.out / "best")))
    assert found["validation/loss"] == pytest.approx(losses[best], rel=1e-6)
    gone = ("data=[{path: gone}]", "validation.data=[gone]")  # what was best is with the state
    to = tmp_path / "to"
    assert main([str(job.out / "settings.yaml"), *gone, "--export-best", "--to", str(to)]) == 0
    assert (to / "ema.safetensors").read_bytes() == best_of(job.out)
    last = dict(checkpoint.load(job.out / "checkpoint").model.named_parameters())
    assert any(not torch.equal(weights[name], last[name]) for name in weights)


@SLOW
def test_the_best_is_exported_alone_when_asked(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from staged.settings import save_resolved

    job = worse(world, tmp_path / "out", num_threads=torch.get_num_threads())
    whole = train(job)
    [best, _] = kept(job.out)
    exported = (job.out / "best" / "ema.safetensors").read_bytes()
    (job.out / "best" / "ema.safetensors").unlink()
    save_resolved(job, tmp_path / "job.yaml")
    assert main([str(tmp_path / "job.yaml"), "--export-best", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["step"] == best
    assert (job.out / "best" / "ema.safetensors").read_bytes() == exported
    assert_same(made(job.out), whole)
    with pytest.raises(ValueError, match="keep_best=true, and a step at which it was measured"):
        main([str(tmp_path / "job.yaml"), "--export-best", "validation.keep_best=false"])


def run_and_die_in_validation(job: TrainSettings, call: int, when: str) -> None:
    die_at("train.validation:HeldOut.measure", call, when)
    Trainer(job).run()


@SLOW
@pytest.mark.parametrize(("call", "when"), [(4, "after"), (1, "after"), (3, "before")])
def test_a_run_killed_while_measuring_remembers_the_best(
    world: World, tmp_path: Path, call: int, when: str
) -> None:
    whole, killed = worse(world, tmp_path / "whole"), worse(world, tmp_path / "killed")
    expected = train(whole)
    process = start(run_and_die_in_validation, killed, call, when)
    process.join(120)
    assert process.exitcode == -9
    assert_same(train(killed), expected)
    assert kept(killed.out) == kept(whole.out)
    assert best_of(killed.out) == best_of(whole.out)


def best_of(out: Path) -> bytes:
    return (out / "best" / "ema.safetensors").read_bytes()


@SLOW
def test_a_best_that_is_gone_or_of_other_data_is_forgotten(world: World, tmp_path: Path) -> None:
    job = worse(world, tmp_path / "out")
    train(job)
    going_on = replace(job, validation=replace(job.validation, max_samples=3))
    assert Trainer(job).best_step == kept(job.out)[0]
    assert Trainer(going_on).best_step is None
    assert Trainer(replace(job, validation=None)).best_step is None
    (job.out / "state" / f"{kept(job.out)[0]:08d}").rename(tmp_path / "elsewhere")
    assert Trainer(job).best_step is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"step": 0, "loss": 1.0, "of": "x"}', '{"step": 1, "loss": "x", "of": ""}'],
)
def test_a_damaged_record_of_the_best_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="the least validation loss so far"):
        Best.read(text)


def test_data_that_are_trained_on_are_refused(world: World, tmp_path: Path) -> None:
    validation = ValidationSettings(data=(world.data,))
    with pytest.raises(ValueError, match=r"validation.data names .*data, which is trained on"):
        Trainer(settings(world, tmp_path, validation=validation))
    missing = ValidationSettings(data=(tmp_path / "missing",))
    with pytest.raises(ValueError, match="missing does not exist"):
        Trainer(settings(world, tmp_path / "b", validation=missing))
    with pytest.raises(ValueError, match="exceed pack_tokens=150"):
        Trainer(settings(world, tmp_path / "c", pack_tokens=150))


# --- ranks ---------------------------------------------------------------------------------------


def measured(ranks: Ranks, job: TrainSettings) -> dict[str, float]:
    return Trainer(job, ranks).validate()


def many_packs(job: TrainSettings) -> TrainSettings:
    return replace(job, packs_per_step=4)


@SLOW
@pytest.mark.parametrize(("world_size", "replicas"), [(3, 1), (4, 2)])
def test_any_number_of_ranks_measures_the_same_bit_by_bit(
    world: World, tmp_path: Path, world_size: int, replicas: int
) -> None:
    job = many_packs(settings(world, tmp_path / "one"))
    wanted = first_measurement(job)
    parallel = ParallelSettings(replicas=replicas, join_timeout_s=600)
    many = replace(job, out=tmp_path / "many", parallel=parallel)
    for outcome in run_ranks(tmp_path / "said", world_size, measured, many):
        assert outcome is not None and outcome["returned"] == wanted


def steps_after_validation(ranks: Ranks, job: TrainSettings) -> list[float]:
    """Losses of steps, with measurements and pictures between them."""
    trainer, losses = Trainer(job, ranks), []
    packs = iter(trainer.packs.from_step(0, ranks.rank))
    for _ in range(3):
        step = [next(packs) for _ in range(4 // ranks.world_size)]
        losses.append(trainer.train_step(*step)["loss"])
        trainer.step += 1
        if job.validation is not None:
            trainer.validate()
            trainer.sample(Silence())
    return losses


@SLOW
@pytest.mark.parametrize("reshard", [False, True])
def test_nothing_of_the_averaged_weights_stays_gathered(
    world: World, tmp_path: Path, reshard: bool
) -> None:
    """Where layers stay whole until a backward pass, that of another forward pass had them."""
    job = many_packs(settings(world, tmp_path / "with"))
    log = replace(job.log, sample_prompts=("a star",), sample_flow_steps=1)
    job = replace(
        job, parallel=ParallelSettings(reshard=reshard, join_timeout_s=600), num_workers=0, log=log
    )
    without = replace(job, out=tmp_path / "without", validation=None)
    losses: list[Sequence[float]] = []
    for run in (job, without):
        outcomes = run_ranks(tmp_path / f"{run.out.name}.said", 2, steps_after_validation, run)
        assert outcomes[0] is not None
        losses.append(outcomes[0]["returned"])
    assert losses[0] == losses[1]


@SLOW
def test_ranks_keep_the_best_and_go_on_with_it(world: World, tmp_path: Path) -> None:
    job = many_packs(worse(world, tmp_path / "two"))
    train_on(2, job)
    again = many_packs(worse(world, tmp_path / "one"))
    train(again)
    assert kept(job.out) == kept(again.out)
    for step, line in curve(again.out).items():
        # A run that gets worse and worse makes much of the last digits.
        assert curve(job.out)[step] == pytest.approx(line, rel=2e-2)
