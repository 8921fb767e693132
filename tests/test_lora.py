"""LoRA: what it computes, what is trained, and files that PEFT reads and writes."""

import json
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import torch.nn.functional as F
from rank_processes import train_on, wait_for_all
from safetensors.torch import load_file, save_file
from tiny import CONFIG
from torch import Tensor, nn
from torch.func import functional_call
from training import World, assert_same, build, run_and_die, start, train

from staged import images
from staged.cli import main as staged
from staged.generate.command import main as generate
from staged.model import adapter as files
from staged.model import checkpoint
from staged.model.adapter import put_adapter, read_adapter, write_adapter
from staged.model.adapter_config import CONFIG as CONFIG_FILE
from staged.model.bagel import Bagel
from staged.model.keys import to_upstream_key
from staged.model.lora import (
    LoraLinear,
    LowRank,
    add_lora,
    first_lora_a,
    is_lora,
    lora_layers,
    merge_lora,
    modules_of,
)
from staged.model.open import look_at_checkpoint, open_checkpoint
from train.forecast import Machine, tell
from train.gpus import GPUS
from train.job import Trainer
from train.settings import LoraSettings, LowRankSettings

GEN, UND = LowRank(rank=4, scale=2.0), LowRank(rank=3, scale=0.5)
LORA = LoraSettings(
    und=LowRankSettings(rank=3, targets=("q_proj", "v_proj", "down_proj")),
    gen=LowRankSettings(rank=4, alpha=8.0),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """With a head of velocities that is not zero, as no model is that a LoRA is for."""
    world = build(tmp_path_factory.mktemp("world"))
    loaded = checkpoint.load(world.init)
    nn.init.normal_(loaded.model.latent_out.weight, std=0.1)
    checkpoint.save(
        world.init,
        model=loaded.model,
        autoencoder=loaded.autoencoder,
        tokenizer=loaded.tokenizer,
    )
    return world


def adapted(*, gen: LowRank = GEN, und: LowRank = UND, filled: bool = True) -> Bagel:
    """A tiny model with LoRAs of both experts; `filled`, of some effect."""
    torch.manual_seed(0)
    model = Bagel(CONFIG)
    model.init_weights()
    decoder = CONFIG.transformer
    add_lora(model, dict.fromkeys(modules_of(decoder, "gen"), gen), seed=1)
    add_lora(model, dict.fromkeys(modules_of(decoder, "und", ("q_proj", "up_proj")), und), seed=1)
    if filled:
        for layer in lora_layers(model).values():
            nn.init.normal_(layer.lora_b, std=0.3)
    return model


# --- what it computes ----------------------------------------------------------------------------


def plain_reference(layer: LoraLinear, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The same by the definition: one weight, made of the base and the product."""
    return F.linear(x, layer.weight + layer.scale * (b @ a), layer.bias)


def test_the_layer_and_its_gradients_are_those_of_one_summed_weight() -> None:
    torch.manual_seed(0)
    layer = LoraLinear.around(nn.Linear(12, 7), LowRank(rank=3, scale=0.7), torch.float32)
    nn.init.normal_(layer.lora_a)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(5, 12, requires_grad=True)
    a, b = (p.detach().clone().requires_grad_() for p in (layer.lora_a, layer.lora_b))
    found, expected = layer(x), plain_reference(layer, x, a, b)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    ours = torch.autograd.grad((found * weights).sum(), [layer.lora_a, layer.lora_b, x])
    theirs = torch.autograd.grad((expected * weights).sum(), [a, b, x])
    for gradient, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, reference)


def test_training_begins_at_the_model_as_it_was() -> None:
    model = adapted(filled=False)
    x = torch.randn(4, CONFIG.transformer.hidden_size)
    for name, layer in lora_layers(model).items():
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        plain.weight, plain.bias = layer.weight, layer.bias
        if layer.in_features == x.shape[1]:
            assert torch.equal(layer(x), plain(x)), name
        assert layer.lora_a.any() and not layer.lora_b.any()


def test_where_an_a_begins_is_a_matter_of_seed_and_name_alone() -> None:
    first = first_lora_a(3, "layers.0.und.q_proj.lora_a", (8, 100))
    assert torch.equal(first, first_lora_a(3, "layers.0.und.q_proj.lora_a", (8, 100)))
    assert not torch.equal(first, first_lora_a(4, "layers.0.und.q_proj.lora_a", (8, 100)))
    assert not torch.equal(first, first_lora_a(3, "layers.1.und.q_proj.lora_a", (8, 100)))
    assert 0.09 < first.abs().max() <= 0.1 and abs(first.mean()) < 0.01


def test_base_weights_stay_the_same_objects_under_the_same_names() -> None:
    model = Bagel(CONFIG)
    before = dict(model.named_parameters())
    add_lora(model, dict.fromkeys(modules_of(CONFIG.transformer, "gen"), GEN))
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    assert {name for name in after if name not in before} == {n for n in after if is_lora(n)}


def test_it_is_made_on_the_meta_device_and_filled_later() -> None:
    with torch.device("meta"):
        model = Bagel(CONFIG)
        add_lora(model, dict.fromkeys(modules_of(CONFIG.transformer, "gen"), GEN), seed=0)
    assert all(parameter.is_meta for parameter in model.parameters())
    model.to_empty(device="cpu")
    model.load_state_dict(adapted().state_dict(), strict=False)
    assert all(layer.lora_b.any() for layer in lora_layers(model).values())


def test_only_plain_linear_layers_take_one() -> None:
    model = adapted()
    with pytest.raises(ValueError, match="is a LoraLinear; a LoRA is added to plain"):
        add_lora(model, {"layers.0.gen.q_proj": GEN})
    with pytest.raises(ValueError, match="is a RMSNorm"):
        add_lora(model, {"layers.0.gen.q_norm": GEN})
    with pytest.raises(ValueError, match=r"no layer layers\.9\.gen\.q_proj"):
        add_lora(model, {"layers.9.gen.q_proj": GEN})
    with pytest.raises(ValueError, match="rank 0 adds nothing"):
        LowRank(rank=0, scale=1.0)


def test_merged_is_unmerged_to_rounding(world: World, tmp_path: Path) -> None:
    trainer = Trainer(world.settings(tmp_path, lora=LORA, num_workers=0))
    for layer in lora_layers(trainer.model).values():
        nn.init.normal_(layer.lora_b, std=0.2)
    pack = next(trainer.packs.from_step(0))
    unmerged = trainer._forward(pack)
    names = set(dict(Bagel(CONFIG).named_parameters()))
    merge_lora(trainer.model)
    assert not lora_layers(trainer.model)
    assert set(dict(trainer.model.named_parameters())) == names
    merged = trainer._forward(pack)
    base = Trainer(world.settings(tmp_path / "base"))._forward(pack)
    torch.testing.assert_close(merged.ce, unmerged.ce, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(merged.mse, unmerged.mse, rtol=1e-4, atol=1e-4)
    assert (merged.ce - base.ce).abs().max() > 0.03


# --- training ------------------------------------------------------------------------------------


def test_gradients_of_a_step_are_those_of_summed_weights(world: World, tmp_path: Path) -> None:
    """Through the whole model, with full activation checkpointing, against plain products."""
    settings = world.settings(tmp_path, lora=LORA, num_workers=0, activation_checkpointing="full")
    trainer = Trainer(settings)
    for layer in lora_layers(trainer.model).values():
        nn.init.normal_(layer.lora_b, std=0.2)
    pack = next(trainer.packs.from_step(0))
    losses = trainer._forward(pack)
    (losses.ce.sum() + losses.mse.sum()).backward()
    found = {name: p.grad for name, p in trainer.parameters.items()}

    leaves = {n: p.detach().clone().requires_grad_() for n, p in trainer.parameters.items()}
    summed = {
        f"model.{name}.weight": layer.weight
        + layer.scale * (leaves[f"{name}.lora_b"] @ leaves[f"{name}.lora_a"])
        for name, layer in lora_layers(trainer.model).items()
    }
    merge_lora(trainer.model)
    plain = functional_call(trainer.objective, summed, (pack,))
    (plain.ce.sum() + plain.mse.sum()).backward()
    assert found.keys() == leaves.keys()
    for name, leaf in leaves.items():
        assert leaf.grad is not None and leaf.grad.any(), name
        scale = leaf.grad.abs().max().item()
        torch.testing.assert_close(found[name], leaf.grad, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_the_lora_is_trained_averaged_and_kept(
    world: World, tmp_path: Path, dtype: Any
) -> None:
    trainer = Trainer(world.settings(tmp_path, lora=LORA, dtype=dtype, num_steps=2))
    base = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if not is_lora(n)}
    folder = trainer.run()
    trained = set(trainer.parameters)
    assert trained == {n for n, _ in trainer.model.named_parameters() if is_lora(n)}
    assert trainer.average is not None and set(trainer.average.tensors) == trained
    assert {p.dtype for p in trainer.parameters.values()} == {torch.float32}
    assert {p.dtype for p in base.values()} == {getattr(torch, dtype)}
    for name, parameter in trainer.model.named_parameters():
        assert is_lora(name) or torch.equal(parameter, base[name]), name
    assert all(layer.lora_b.any() for layer in lora_layers(trainer.model).values())
    stored = {
        re.sub(r"^(weights|average|optimizer\.\w+)\.", "", name) for name in state_of(tmp_path)
    }
    assert stored == trained
    assert folder == tmp_path / "adapter" and not (tmp_path / "checkpoint").exists()
    adapter = read_adapter(folder)
    assert adapter.base == str(world.init)
    for name, tensor in trainer.average.tensors.items():
        assert torch.equal(adapter.tensors[name], tensor)


def state_of(out: Path) -> dict[str, Tensor]:
    [*_, newest] = sorted((out / "state").iterdir())
    return load_file(newest / "state.safetensors")


def test_experts_have_ranks_scales_and_targets_of_their_own(world: World, tmp_path: Path) -> None:
    trainer = Trainer(world.settings(tmp_path, lora=LORA))
    found = {name: layer.low_rank for name, layer in lora_layers(trainer.model).items()}
    assert found["layers.2.gen.gate_proj"] == LowRank(rank=4, scale=2.0)
    assert found["layers.0.und.down_proj"] == LowRank(rank=3, scale=1.0)
    assert "layers.0.und.k_proj" not in found
    num_layers = CONFIG.transformer.num_layers
    assert len(found) == num_layers * (7 + 3)
    alone = replace(LORA, und=None)
    trainer = Trainer(world.settings(tmp_path / "gen", lora=alone))
    assert {name.split(".")[2] for name in lora_layers(trainer.model)} == {"gen"}


def test_a_run_that_was_killed_goes_on_bit_by_bit(world: World, tmp_path: Path) -> None:
    whole = world.settings(tmp_path / "whole", lora=LORA, num_steps=5)
    expected = train(whole)
    assert files.WEIGHTS in expected
    killed = replace(whole, out=tmp_path / "killed")
    process = start(run_and_die, killed, "train.job:Trainer.train_step", 5, "before")
    wait_for_all([process])
    assert process.exitcode == -signal.SIGKILL
    assert_same(train(killed), expected)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_two_ranks_train_the_lora_that_one_process_trains(
    world: World, tmp_path: Path, dtype: Any
) -> None:
    """Cut among ranks, with frozen weights that are narrower than what is trained beside them."""
    alone = world.settings(tmp_path / "one", lora=LORA, dtype=dtype, num_steps=3, packs_per_step=2)
    Trainer(alone).run()
    shared = replace(alone, out=tmp_path / "two", activation_checkpointing="full")
    train_on(2, shared)
    one, two = (read_adapter(s.out / "adapter") for s in (alone, shared))
    assert one.low_ranks == two.low_ranks
    bound = 1e-4 if dtype == "float32" else 2e-2
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(two.tensors[name], tensor, rtol=bound, atol=bound * 0.1)


def test_a_run_begins_at_a_lora_and_trains_it_on(world: World, tmp_path: Path) -> None:
    first = Trainer(world.settings(tmp_path / "first", lora=LORA, num_steps=2)).run()
    trainer = Trainer(world.settings(tmp_path / "second", init=str(first), lora=LORA))
    before = read_adapter(first)
    for name, parameter in trainer.parameters.items():
        assert torch.equal(parameter, before.tensors[name])
    assert read_adapter(trainer_run(trainer, 1)).base == str(world.init)
    other = replace(LORA, gen=LowRankSettings(rank=5))
    with pytest.raises(ValueError, match=r"asks for another one; 21 layers differ.*layers\.0\.gen"):
        Trainer(world.settings(tmp_path / "third", init=str(first), lora=other))
    machine = Machine(
        name="h100", gpu=GPUS["h100"], ranks=1, utilization=0.3, usd_per_gpu_hour=None
    )
    assert tell(world.settings(tmp_path, init=str(first), lora=LORA), machine)["fits"]
    with pytest.raises(ValueError, match="asks for another one; 21 layers differ"):
        tell(world.settings(tmp_path, init=str(first), lora=other), machine)


def trainer_run(trainer: Trainer, num_steps: int) -> Path:
    trainer.settings = replace(trainer.settings, num_steps=num_steps)
    return trainer.run()


def test_a_run_of_all_weights_begins_at_a_lora_merged(world: World, tmp_path: Path) -> None:
    first = Trainer(world.settings(tmp_path / "first", lora=LORA, num_steps=3)).run()
    trainer = Trainer(world.settings(tmp_path / "second", init=str(first)))
    base = Trainer(world.settings(tmp_path / "base"))
    assert trainer.parameters.keys() == base.parameters.keys()
    changed = {n for n, p in trainer.parameters.items() if not torch.equal(p, base.parameters[n])}
    assert changed == {f"{name}.weight" for name in read_adapter(first).low_ranks}


def test_settings_that_contradict_one_another_are_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="freeze has no meaning with lora"):
        world.settings(tmp_path, lora=LORA, freeze=("vit",))
    with pytest.raises(ValueError, match="neither und nor gen"):
        LoraSettings(und=None, gen=None)
    with pytest.raises(ValueError, match="rank"):
        LowRankSettings(rank=0)
    with pytest.raises(ValueError, match="each once"):
        LowRankSettings(targets=("q_proj", "q_proj"))


# --- files ---------------------------------------------------------------------------------------


class Namesake(nn.Module):
    """Linear layers under the names that they have in upstream's model, and nothing else."""

    def __init__(self, model: Bagel) -> None:
        super().__init__()
        for name, layer in model.named_modules():
            if not isinstance(layer, nn.Linear) or ".layers." not in f".{name}":
                continue
            path = to_upstream_key(f"{name}.weight").removesuffix(".weight").split(".")
            owner: nn.Module = self
            for part in path[:-1]:
                if not hasattr(owner, part):
                    owner.add_module(part, nn.Module())
                owner = owner.get_submodule(part)
            plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
            plain.weight.data = layer.weight.detach().clone()
            owner.add_module(path[-1], plain)

    def weights(self) -> dict[str, Tensor]:
        return {n: m.weight.detach() for n, m in self.named_modules() if isinstance(m, nn.Linear)}


def merged_by_peft(model: Namesake, folder: Path) -> dict[str, Tensor]:
    """Weights after PEFT has put an adapter onto a model and merged it."""
    loaded = peft.PeftModel.from_pretrained(model, str(folder))
    merged: Namesake = loaded.merge_and_unload()
    return merged.weights()


@pytest.mark.parametrize(
    ("gen", "und"),
    [(GEN, UND), (UND, UND), (LowRank(rank=2, scale=0.25), LowRank(rank=2, scale=1))],
)
def test_peft_reads_what_we_write(tmp_path: Path, gen: LowRank, und: LowRank) -> None:
    model = adapted(gen=gen, und=und)
    plain = Namesake(model)
    before = {name: weight.clone() for name, weight in plain.weights().items()}
    folder = write_adapter(tmp_path / "adapter", model, base="some/base")
    found = merged_by_peft(plain, folder)
    names = {to_upstream_key(f"{name}.weight")[:-7]: name for name in lora_layers(model)}
    merge_lora(model)
    for name, weight in found.items():
        if name in names:
            expected = model.get_submodule(names[name]).weight
            torch.testing.assert_close(weight, expected)
            assert not torch.equal(weight, before[name])
        else:
            assert torch.equal(weight, before[name]), name


@pytest.mark.parametrize("rslora", [False, True])
def test_we_read_what_peft_writes(tmp_path: Path, rslora: bool) -> None:
    torch.manual_seed(0)
    model = Bagel(CONFIG)
    model.init_weights()
    plain = Namesake(model)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj_moe_gen", "mlp.down_proj"],
        rank_pattern={"mlp.down_proj": 2},
        alpha_pattern={r"layers\.1\.mlp\.down_proj": 3},
        use_rslora=rslora,
        init_lora_weights=False,
    )
    theirs = peft.get_peft_model(plain, config)  # type: ignore[arg-type]
    theirs.save_pretrained(str(tmp_path))
    adapter = read_adapter(tmp_path)
    root = 2 if rslora else 4
    assert adapter.low_ranks["layers.0.gen.q_proj"] == LowRank(rank=4, scale=6 / root)
    assert adapter.low_ranks["layers.1.und.down_proj"].rank == 2
    put_adapter(model, adapter)
    merge_lora(model)
    merged = theirs.merge_and_unload().weights()
    for name in adapter.low_ranks:
        expected = merged[to_upstream_key(f"{name}.weight")[:-7]]
        torch.testing.assert_close(model.get_submodule(name).weight.detach(), expected)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    model = adapted()
    folder = write_adapter(tmp_path / "a", model, base="miniature:base")
    adapter = read_adapter(folder)
    assert adapter.base == "miniature:base"
    assert adapter.low_ranks == {name: made.low_rank for name, made in lora_layers(model).items()}
    other = Bagel(CONFIG)
    put_adapter(other, adapter)
    for name, layer in lora_layers(model).items():
        again = other.get_submodule(name)
        assert torch.equal(again.lora_a, layer.lora_a) and torch.equal(again.lora_b, layer.lora_b)


def edited(folder: Path, **changes: Any) -> Path:
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'; only LORA"),
        ({"use_dora": True}, "use_dora is True; only plain LoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"r": 5, "rank_pattern": {}}, "is of rank 4, and 5 stands there"),
        ({"lora_alpha": "x", "alpha_pattern": {}}, "lora_alpha of .* is 'x'"),
        ({"rank_pattern": {"(": 3}}, "rank_pattern has"),
        ({"rank_pattern": {"(a+)+": 3}}, "too intricate"),
        ({"rank_pattern": [1]}, "no mapping"),
    ],
)
def test_a_configuration_of_more_than_plain_lora_is_refused_by_its_key(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = edited(write_adapter(tmp_path / "a", adapted(), base=""), **changes)
    with pytest.raises(ValueError, match=words):
        read_adapter(folder)


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", adapted(), base="")
    path = folder / files.WEIGHTS
    stored = load_file(path)
    key = "base_model.model.language_model.model.layers.0.self_attn.q_proj_moe_gen"
    half = {name: tensor for name, tensor in stored.items() if name != f"{key}.lora_B.weight"}
    for tensors, words in (
        (stored | {f"{key}.lora_A.weight": torch.full((4, 32), torch.nan)}, "NaN or infinite"),
        (stored | {"base_model.model.lm_head.weight": torch.ones(2, 2)}, "1 tensors are no LoRA"),
        (half, "no lora_B for"),
        (stored | {f"{key}.lora_B.weight": torch.ones(32, 3)}, "3 columns in B"),
        ({}, "holds no tensors"),
    ):
        save_file(tensors, path)
        with pytest.raises(ValueError, match=words):
            read_adapter(folder)
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match="no readable safetensors"):
        read_adapter(folder)
    path.unlink()
    with pytest.raises(ValueError, match="is missing; only safetensors"):
        read_adapter(folder)
    (folder / CONFIG_FILE).unlink()
    with pytest.raises(ValueError, match=r"adapter_config\.json is missing"):
        read_adapter(folder)
    with pytest.raises(ValueError, match="is no folder with a LoRA"):
        read_adapter(tmp_path / "nowhere")


def test_a_lora_of_another_model_names_what_does_not_fit(tmp_path: Path) -> None:
    adapter = read_adapter(write_adapter(tmp_path / "a", adapted(), base="x/y"))
    decoder = replace(CONFIG.transformer, num_layers=2, intermediate_size=44)
    with pytest.raises(ValueError) as caught:
        put_adapter(Bagel(replace(CONFIG, transformer=decoder)), adapter)
    message = str(caught.value)
    assert "is no LoRA for this model (it says that it is for x/y)" in message
    assert "9 missing in the model: layers.2.gen.down_proj" in message
    assert "of another size: layers.0.gen.down_proj [32, 48], the model's is [32, 44]" in message


def test_a_model_without_one_has_none_to_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no LoRA to write"):
        write_adapter(tmp_path, Bagel(CONFIG), base="")


# --- drawing -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upon_miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = open_checkpoint("miniature:base").model
    wanted = modules_of(model.config.transformer, "gen")
    add_lora(model, dict.fromkeys(wanted, GEN), seed=0)
    generator = torch.Generator().manual_seed(0)
    for layer in lora_layers(model).values():
        nn.init.normal_(layer.lora_b, std=0.05, generator=generator)
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    return write_adapter(folder, model, base="miniature:base")


def drawn(out: Path, *options: str) -> list[Any]:
    argv = ["a photo of a red star", "--mode", "one-shot", "--flow-steps", "2", *options]
    assert generate([*argv, "--dtype", "float32", "--out", str(out)]) == 0
    # The file also says by which checkpoint it was drawn.
    pixels: list[Any] = images.decode((out / "final.png").read_bytes()).tolist()
    return pixels


def test_pictures_are_drawn_with_a_lora_by_either_name(
    upon_miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lora = str(upon_miniature)
    beside = drawn(tmp_path / "a", "--checkpoint", "miniature:base", "--lora", lora)
    assert f"miniature:base with {lora}" in (tmp_path / "a" / "report.html").read_text()
    assert drawn(tmp_path / "b", "--checkpoint", lora) == beside
    assert drawn(tmp_path / "c", "--checkpoint", "miniature:base") != beside
    assert staged(["generate", "a star", "--checkpoint", lora, "--lora", lora]) == 1
    assert "is itself a LoRA" in capsys.readouterr().err
    assert staged(["generate", "a star", "--lora", "nowhere"]) == 1
    assert "nowhere/adapter_config.json is missing" in capsys.readouterr().err


def test_a_folder_of_pictures_with_a_lora_takes_none_without(
    upon_miniature: Path, tmp_path: Path
) -> None:
    drawn(tmp_path, "--checkpoint", "miniature:base", "--lora", str(upon_miniature))
    with pytest.raises(ValueError, match="checkpoint"):
        drawn(tmp_path, "--checkpoint", "miniature:base")


def test_a_lora_whose_base_is_gone_says_so(tmp_path: Path) -> None:
    for base, words in (
        ("", "does not say which checkpoint"),
        ("runs/of/yesterday", "upon runs/of/yesterday, which is not here"),
    ):
        folder = write_adapter(tmp_path / "a", adapted(), base=base)
        with pytest.raises(ValueError, match=words):
            look_at_checkpoint(str(folder))
