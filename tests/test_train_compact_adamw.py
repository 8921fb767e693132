"""AdamW over narrow moments: a fraction of the memory, nearly the same steps, exactly resumed."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from rank_processes import run_ranks, run_trainer, wait_for_all
from safetensors.torch import load_file
from test_train_ranks_resume import stop_after
from torch import Tensor, nn
from training import SLOW, World, assert_same, build, made, run_and_die, start, train

from staged.model import checkpoint
from train import compact_adamw
from train.compact_adamw import BLOCK, CompactAdamW, decoded, encoded, levels
from train.job import Trainer
from train.ranks import Ranks
from train.settings import OptimizerSettings, TrainSettings

States = Literal["float32", "bfloat16", "8bit"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


def keep_small_ones_narrow() -> None:
    """The tiny model's matrices too, in this process."""
    compact_adamw._MIN_NUMBERS = 64


@pytest.fixture(autouse=True)
def small_is_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact_adamw, "_MIN_NUMBERS", 64)


def die_narrow(settings: TrainSettings) -> None:
    keep_small_ones_narrow()
    run_and_die(settings, "train.job:Trainer.train_step", 5, "before")


def run_narrow(ranks: Ranks, settings: TrainSettings, steps: int) -> int:
    """To the end, or as by Ctrl-C after some steps."""
    keep_small_ones_narrow()
    if steps < settings.num_steps:
        return stop_after(ranks, settings, steps)
    return run_trainer(ranks, settings)


# --- levels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
def test_there_are_256_levels_over_seven_decades(signed: bool) -> None:
    found = levels(signed, CPU)
    assert len(found) == len(found.unique()) == 256
    assert found.max() == 1 and found.min() == (-levels(True, CPU)[-2] if signed else 0)
    assert found[found > 0].min() < 1e-6


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("columns", [1, BLOCK - 1, BLOCK, 2 * BLOCK + 5])
def test_a_number_comes_back_to_the_nearest_level_of_its_block(signed: bool, columns: int) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(7, columns, generator=generator) * 10 ** torch.linspace(-9, 3, 7)[:, None]
    values = values if signed else values.abs()
    codes, scales = encoded(values, signed)
    assert codes.dtype == torch.uint8 and scales.shape == (7, -(-columns // BLOCK))
    found = decoded(codes, scales, signed)
    largest = scales.repeat_interleave(BLOCK, dim=1)[:, :columns]
    assert torch.equal(found[values == largest], largest[values == largest])
    every = levels(signed, CPU) * largest[..., None]
    nearest = (every - values[..., None]).abs().min(dim=-1).values
    assert ((found - values).abs() <= nearest + 1e-6 * largest).all()


def test_a_second_moment_is_never_rounded_to_nothing() -> None:
    """An update divided by it would have no bound."""
    values = torch.tensor([[1.0, 1e-12, 0.0]])
    found = decoded(*encoded(values, False), False)
    assert found[0, 0] == 1 and 0 < found[0, 1] < 1e-6 and found[0, 2] == 0
    assert not decoded(*encoded(torch.zeros(2, 300), False), False).any()


def test_rows_keep_their_levels_wherever_a_matrix_is_cut() -> None:
    values = torch.randn(6, 700, generator=torch.Generator().manual_seed(0))
    whole = encoded(values, True)
    parts = [encoded(part, True) for part in values.split([1, 0, 3, 2])]
    for number in range(2):
        assert torch.equal(torch.cat([part[number] for part in parts]), whole[number])


# --- steps ---------------------------------------------------------------------------------------


def steps(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, count: int) -> Tensor:
    """Noisy gradients of a quadratic."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.grad = parameter.detach() - 1 + 0.3 * noise
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize(("states", "bound"), [("bfloat16", 0.01), ("8bit", 0.03)])
def test_its_steps_are_nearly_those_of_adamw(
    states: States, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact_adamw, "_CHUNK", 900)  # three rows at a time
    options: dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8}
    exact, narrow = (nn.Parameter(torch.zeros(8, 300)) for _ in range(2))
    group = {"weight_decay": 0.1}
    wanted = steps(torch.optim.AdamW([{"params": [exact], **group}], **options), exact, 100)
    found = steps(CompactAdamW([{"params": [narrow], **group}], states, **options), narrow, 100)
    error = (found - wanted).pow(2).mean().sqrt() / wanted.pow(2).mean().sqrt()
    assert 0 < error < bound


def test_vectors_and_small_matrices_are_updated_as_by_adamw() -> None:
    options: dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8}
    exact, narrow = (nn.Parameter(torch.zeros(500)) for _ in range(2))
    wanted = steps(torch.optim.AdamW([exact], weight_decay=0, **options), exact, 20)
    found = steps(CompactAdamW([{"params": [narrow]}], "8bit", **options), narrow, 20)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


# --- runs ----------------------------------------------------------------------------------------


def job(world: World, out: Path, states: States, **changes: Any) -> TrainSettings:
    settings = world.settings(out, cache=world.folder / "cache", packs_per_step=2, **changes)
    return replace(settings, optimizer=replace(settings.optimizer, states=states))


@pytest.mark.parametrize("states", [pytest.param("bfloat16", marks=pytest.mark.slow), "8bit"])
def test_a_run_learns_nearly_the_same_over_a_fraction_of_the_moments(
    world: World, tmp_path: Path, states: States
) -> None:
    exact = train(job(world, tmp_path / "exact", "float32", num_steps=12))
    settings = job(world, tmp_path / "narrow", states, num_steps=12)
    trainer = Trainer(settings)
    trainer.run()
    for line, wanted in zip(made(settings.out)["log"], exact["log"], strict=True):
        assert line["loss"] == pytest.approx(wanted["loss"], rel=0.02)
    moments = {
        name: sum(t.nbytes for t in trainer.optimizer.state_of(p).values()) / (8 * p.numel())
        for name, p in trainer.parameters.items()
        if p.ndim == 2 and p.shape[1] >= 64
    }
    # A row of the tiny model is shorter than a block, so that scales weigh more than at full size.
    assert max(moments.values()) < (0.51 if states == "bfloat16" else 0.35), moments


@SLOW
def test_a_killed_run_goes_on_bit_by_bit(world: World, tmp_path: Path) -> None:
    whole = train(job(world, tmp_path / "whole", "8bit", num_steps=5))
    killed = job(world, tmp_path / "killed", "8bit", num_steps=5)
    process = start(die_narrow, killed)
    wait_for_all([process])
    assert process.exitcode == -9
    assert_same(train(killed), whole)


@pytest.mark.slow
def test_another_number_of_ranks_takes_up_the_same_levels(world: World, tmp_path: Path) -> None:
    """Matrices of three rows on two ranks among them; blocks lie within rows."""
    alone = job(world, tmp_path / "alone", "8bit", num_steps=6)
    train(alone)
    shared = replace(alone, out=tmp_path / "shared")
    assert run_ranks(tmp_path / "said", 2, run_narrow, shared, 4) == [{"returned": 4}] * 2
    codes = {}
    for path in sorted((shared.out / "state" / "00000004").glob("*.safetensors")):
        codes |= {name: t.dtype for name, t in load_file(path).items()}
    assert codes["optimizer.exp_avg.layers.0.und.q_proj.weight"] == torch.uint8
    train(shared)
    weights = checkpoint.load(shared.out / "checkpoint").model.state_dict()
    for name, tensor in checkpoint.load(alone.out / "checkpoint").model.state_dict().items():
        # Where sums differ in the last digit a moment may fall to the level beside.
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-3)


def test_betas_that_would_stand_still_are_refused() -> None:
    with pytest.raises(ValueError, match=r"betas are \[0\.9, 0\.999\] with states=8bit"):
        OptimizerSettings(betas=(0.9, 0.999), states="8bit")
    OptimizerSettings(betas=(0.9, 0.999))
