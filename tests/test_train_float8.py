"""Products in float8, emulated: what they change, what they leave alone, and what is refused."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from rank_processes import train_on
from tiny import CONFIG
from training import World, assert_same, build, one_shot, train, understanding

from staged.model.bagel import Bagel
from train import float8
from train.float8 import float8_problem, require_float8, use_float8
from train.job import Trainer
from train.settings import LoraSettings

needs_torchao = pytest.mark.skipif(
    find_spec("torchao") is None, reason="needs pip install staged[float8]"
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Also packs of words alone, of which the gen expert has no token."""
    data = [one_shot(0), understanding(1), one_shot(2), understanding(3)]
    return build(tmp_path_factory.mktemp("world"), data)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


@needs_torchao
def test_a_run_learns_resumes_and_exports_as_one_without(world: World, tmp_path: Path) -> None:
    plain = world.settings(tmp_path / "plain", pack_tokens=120, num_steps=6)
    float8ed = replace(plain, matmuls="float8_emulated", out=tmp_path / "float8")
    exported, wide = train(float8ed), train(plain)
    assert exported.keys() == wide.keys()
    near, exact = losses(float8ed.out), losses(plain.out)
    assert near != exact
    assert near == pytest.approx(exact, rel=0.05)
    halves = replace(float8ed, out=tmp_path / "halves", activation_checkpointing="full")
    Trainer(replace(halves, max_minutes=1e-9)).run()  # ends after the first step
    assert_same({"log": train(halves)["log"]}, {"log": exported["log"]})


@needs_torchao
@pytest.mark.slow
def test_ranks_share_it(world: World, tmp_path: Path) -> None:
    alone = world.settings(
        tmp_path / "alone", num_steps=2, packs_per_step=2, matmuls="float8_emulated"
    )
    train(alone)
    shared = replace(alone, out=tmp_path / "shared")
    train_on(2, shared)
    assert losses(shared.out) == pytest.approx(losses(alone.out), rel=1e-4)


@needs_torchao
def test_what_stays_as_it_is_is_named() -> None:
    odd = replace(CONFIG.transformer, num_layers=1, intermediate_size=40)
    model = Bagel(replace(CONFIG, transformer=odd))
    names = dict(model.named_parameters())
    said = use_float8(model, emulate=True)
    assert said.startswith("matmuls: float8, emulated, in 8 linear layers; not in connector, ")
    for name in ("layers.0.gen.down_proj", "lm_head", "latent_out", "vision"):
        assert name in said
    assert {n: id(p) for n, p in model.named_parameters()} == {n: id(p) for n, p in names.items()}


@needs_torchao
def test_a_layer_without_rows_has_gradients_of_zero() -> None:
    model = Bagel(CONFIG)
    use_float8(model, emulate=True)
    layer = model.layers[0].gen.q_proj
    layer(torch.zeros(0, CONFIG.transformer.hidden_size)).sum().backward()
    assert not layer.weight.grad.any()


@needs_torchao
def test_what_computes_wrongly_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert not float8_problem(64, 96, CPU, dtype, emulate=True)
    monkeypatch.setitem(float8._TOLERANCE, "that of weights", 0.01)
    found = float8_problem(64, 96, CPU, torch.float32, emulate=True)
    assert found.startswith("that of weights is off by 0.0")


@needs_torchao
def test_a_device_without_such_products_is_refused(world: World, tmp_path: Path) -> None:
    job = world.settings(tmp_path / "out", matmuls="float8")
    with pytest.raises(ValueError, match=r"matmuls=float8 takes a GPU of compute capability 8\.9"):
        Trainer(job)
    assert not job.out.exists()


def test_a_gpu_without_such_products_is_refused_by_name(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(float8, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    job = world.settings(tmp_path / "out", matmuls="float8")
    with pytest.raises(
        ValueError, match=r"8\.9 or more \(H100.*device is NVIDIA A100; leave it at"
    ):
        require_float8(job, gpu, torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    require_float8(job, gpu, torch.bfloat16)


def test_without_the_package_it_is_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(float8, "find_spec", lambda name: None)
    job = world.settings(tmp_path / "out", matmuls="float8_emulated")
    with pytest.raises(ValueError, match=r"takes torchao, .* pip install staged\[float8\]"):
        require_float8(job, CPU, torch.float32)


def test_beside_a_lora_it_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave it at as_dtype with lora"):
        world.settings(tmp_path / "out", matmuls="float8", lora=LoraSettings())
