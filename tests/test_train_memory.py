"""What a run keeps is counted before it begins, and refused where the device has less."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training import World, build

from staged.cli import main as staged
from staged.model.bagel import Bagel
from staged.model.config_files import read_config
from staged.settings import load
from train import memory
from train.job import Trainer
from train.memory import kept_bytes, require_memory
from train.optimizer import Optimizers
from train.parts import freeze
from train.settings import OptimizerSettings, Subset, TrainSettings
from train.ways_out import keeping_less

CONFIGS = Path(__file__).parents[1] / "configs/bagel_7b"
FULL = CONFIGS / "model"


def settings_of(config: str, *overrides: str) -> TrainSettings:
    return load(TrainSettings, CONFIGS / config, list(overrides))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(
    ("frozen", "averaged", "parts"),
    [
        ((), True, "299 GiB (weights 54, gradients 54, moments 109, average 54, working copy 27)"),
        (
            ("und", "vit", "connector", "words"),
            False,
            "155 GiB (weights 54, gradients 24, moments 49, working copy 27)",
        ),
    ],
)
def test_the_full_size_model_is_refused_on_one_gpu_of_today(
    frozen: tuple[str, ...], averaged: bool, parts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.device("meta"):
        model = Bagel(read_config(FULL))
    trained = freeze(model, frozen)
    optimizer = Optimizers(torch.optim.AdamW(trained.values()))
    kept = kept_bytes(model, trained, optimizer, averaged=averaged, dtype=torch.bfloat16)
    monkeypatch.setattr(memory, "memory_of", lambda device: 79 * 2**30)
    settings = settings_of("plan_sketch.yaml", f"freeze=[{','.join(frozen)}]")
    cuda = torch.device("cuda")
    with pytest.raises(ValueError) as error:
        require_memory(kept, cuda, settings)
    assert str(error.value).startswith(f"a step keeps {parts}, activations not counted, and cuda")
    assert "  optimizer.ema_decay=0\n" in str(error.value)
    assert ("  freeze=[und,vit" in str(error.value)) == (not frozen)
    with pytest.raises(ValueError) as error:
        require_memory(kept, cuda, settings, needs_average=True)
    assert "ema_decay" not in str(error.value) and "  optimizer.states=8bit" in str(error.value)
    monkeypatch.setattr(memory, "memory_of", lambda device: sum(kept.values()))
    require_memory(kept, cuda, settings)


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        ("plan_sketch.yaml", []),
        ("plan_sketch.yaml", ["optimizer.betas=[0.9,0.999]"]),
        ("plan_sketch_gen.yaml", []),
        ("plan_sketch_lora.yaml", ["optimizer.ema_decay=0.9"]),
        ("plan_sketch_lora.yaml", ["optimizer.ema_decay=0"]),
    ],
)
def test_what_is_said_to_keep_less_is_taken_by_the_run(config: str, overrides: list[str]) -> None:
    settings = settings_of(config, *overrides)
    for way in keeping_less(settings):
        changed = settings_of(config, *overrides, *way.split())
        assert changed != settings
        assert not ("lora" in way and settings.lora is not None)
    nothing_left = [*overrides, "optimizer.states=8bit", "optimizer.ema_decay=0"]
    if settings.lora is not None:
        assert not keeping_less(settings_of(config, *nothing_left))


def test_a_run_is_refused_before_its_data_are_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "memory_of", lambda device: 2**10)
    nowhere = (Subset(path=tmp_path / "nowhere"),)
    with pytest.raises(ValueError, match=r"a step keeps .* and cpu has 0\.0"):
        Trainer(world.settings(tmp_path / "out", data=nowhere))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_what_is_counted_is_what_a_step_leaves(world: World, tmp_path: Path, kind: str) -> None:
    settings = world.settings(tmp_path / "out", num_steps=1, freeze=("vit",))
    settings = replace(settings, optimizer=OptimizerSettings(kind=kind))  # type: ignore[arg-type]
    trainer = Trainer(settings)
    trainer.run()
    states = [trainer.optimizer.state_of(p).values() for p in trainer.parameters.values()]
    kept = kept_bytes(
        trainer.model, trainer.parameters, trainer.optimizer, averaged=True, dtype=torch.float32
    )
    moments = [tensor for tensors in states for tensor in tensors]
    average = trainer.average
    assert average is not None
    assert kept["moments"] == sum(tensor.nbytes for tensor in moments)
    assert kept["average"] == sum(tensor.nbytes for tensor in average.tensors.values())
    assert kept["weights"] == sum(p.nbytes for p in trainer.model.parameters())
    assert kept["working copy"] == 0


def test_what_is_frozen_is_kept_as_narrow_as_it_is_stored(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It learns what it learned with wide copies, and is exported as it came; not where that would
    round it."""
    narrow = tmp_path / "narrow"
    assert staged(["export", str(world.init), "--dtype", "bfloat16", "--out", str(narrow)]) == 0
    job = world.settings(tmp_path / "out", dtype="bfloat16", num_steps=3, freeze=("und", "vit"))
    job = replace(job, init=str(narrow), num_workers=0)
    trainer = Trainer(job)
    types = {name: p.dtype for name, p in trainer.model.named_parameters()}
    assert types["layers.0.und.q_proj.weight"] == torch.bfloat16
    assert {types[name] for name in trainer.parameters} == {torch.float32}
    stored = load_file(trainer.run() / "ema.safetensors")
    queries = "language_model.model.layers.0.self_attn.q_proj"
    assert torch.equal(
        stored[f"{queries}.weight"], load_file(narrow / "ema.safetensors")[f"{queries}.weight"]
    )
    assert stored[f"{queries}_moe_gen.weight"].dtype == torch.float32
    with monkeypatch.context() as patched:
        patched.setattr("train.run_model.is_stored_as", lambda *_: False)
        wide = load_file(Trainer(replace(job, out=tmp_path / "wide")).run() / "ema.safetensors")
    assert [name for name in wide if not torch.equal(wide[name], stored[name].float())] == []
    rounded = Trainer(replace(job, init=str(world.init), out=tmp_path / "rounded"))
    assert {p.dtype for p in rounded.model.parameters()} == {torch.float32}
