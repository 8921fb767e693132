"""Checkpoints as other tools leave them, and what `staged export` and `merge-lora` make of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_checkpoint import CONFIG, assert_same_tensors, build
from torch import Tensor, nn

from staged.cli import main as staged
from staged.model import adapter as adapters
from staged.model import checkpoint
from staged.model import rewrite as rewriting
from staged.model.adapter import write_adapter
from staged.model.bagel import Bagel
from staged.model.checkpoint import load, save
from staged.model.lora import LowRank, add_lora, lora_layers, merge_lora, modules_of
from staged.model.open import open_checkpoint
from staged.model.safetensors_writer import write_safetensors
from staged.model.tokenizer import train_tokenizer

PATCHES = "vit_model.vision_model.embeddings.patch_embedding.weight"
QUERIES = "language_model.model.layers.0.self_attn.q_proj"
TABLES = ("latent_pos_embed.pos_embed", "vit_pos_embed.pos_embed")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, autoencoder = build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name or name.startswith("latent_out"):
                parameter.normal_(std=0.1)
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    tokenizer = train_tokenizer(["a red circle above a blue star"], 290)
    return save(folder, model=model, autoencoder=autoencoder, tokenizer=tokenizer)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """The same checkpoint with other tensors in its file."""
    path = folder / "ema.safetensors"
    save_file({k: t.contiguous() for k, t in change(load_file(path)).items()}, path)
    return folder


def prefixed(prefix: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def within(wrapper: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """As torch.compile or FSDP of single layers name them."""
    return lambda tensors: {
        name.replace(".layers.1.", f".layers.1.{wrapper}."): tensor
        for name, tensor in tensors.items()
    }


FOREIGN: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "DDP": prefixed("module."),
    "torch.compile": prefixed("_orig_mod."),
    "PEFT, merged": prefixed("base_model.model."),
    "DDP over torch.compile": prefixed("module._orig_mod."),
    "a trainer's own class": prefixed("model."),
    "layers compiled": within("_orig_mod"),
    "layers in FSDP and checkpointed": within("_fsdp_wrapped_module._checkpoint_wrapped_module"),
    "without tables": lambda tensors: {k: t for k, t in tensors.items() if k not in TABLES},
    "patches as a convolution": lambda tensors: (
        tensors | {PATCHES: tensors[PATCHES].unflatten(1, (4, 4, 3)).permute(0, 3, 1, 2)}
    ),
    "with what can be computed": lambda tensors: (
        tensors
        | {
            "language_model.model.rotary_emb.inv_freq": torch.ones(4),
            "vit_model.vision_model.embeddings.position_ids": torch.arange(25)[None],
        }
    ),
}


@pytest.mark.parametrize("writer", FOREIGN)
def test_a_checkpoint_loads_whoever_wrote_it(saved: Path, folder: Path, writer: str) -> None:
    loaded = load(rewritten(folder, FOREIGN[writer]))
    assert_same_tensors(loaded.model, load(saved).model)


@pytest.mark.parametrize("name", ["model.safetensors", "step_1000.safetensors"])
def test_weights_of_another_name_load(saved: Path, folder: Path, name: str) -> None:
    (folder / "ema.safetensors").rename(folder / name)
    assert_same_tensors(load(folder).model, load(saved).model)


def in_parts(folder: Path, count: int = 3) -> Path:
    tensors = load_file(folder / "ema.safetensors")
    (folder / "ema.safetensors").unlink()
    for number in range(count):
        part = {f"module.{k}": t for k, t in list(tensors.items())[number::count]}
        save_file(part, folder / f"model-{number + 1:05}-of-{count:05}.safetensors")
    return folder


def test_parts_load_with_and_without_an_index(saved: Path, folder: Path) -> None:
    in_parts(folder)
    assert_same_tensors(load(folder).model, load(saved).model)
    parts = sorted(folder.glob("model-*"))
    index = {"weight_map": {key: path.name for path in parts for key in load_file(path)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same_tensors(load(folder).model, load(saved).model)
    key = next(iter(load_file(parts[0])))
    index["weight_map"][key] = parts[1].name
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=rf"disagree on {key}"):
        load(folder)


# --- what does not fit ---------------------------------------------------------------------------


def test_a_part_that_is_missing_is_named(folder: Path) -> None:
    in_parts(folder)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ValueError, match="lacks 1 of 3 parts of model: number 2"):
        load(folder)
    shutil.copy(
        folder / "model-00001-of-00003.safetensors", folder / "model-00002-of-00003.safetensors"
    )
    with pytest.raises(ValueError, match="in several parts"):
        load(folder)
    (folder / "other-00001-of-00001.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="parts of several sets"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t: t | {"module.llm2vae.bias": t["llm2vae.bias"].clone()},
            r"has llm2vae\.bias and module\.llm2vae\.bias, which are one tensor",
        ),
        (prefixed("teacher."), r"missing: .* and \d+ more; \d+ unexpected: teacher\.connector"),
        (
            lambda t: (
                {k.replace("q_proj.weight", "q_proj.base_layer.weight"): v for k, v in t.items()}
                | {f"{QUERIES}.lora_A.default.weight": torch.ones(1)}
            ),
            "holds a model with a LoRA that is not merged",
        ),
        (
            lambda t: t | {"language_model.model.layers.7.input_layernorm.weight": torch.ones(16)},
            r"1 unexpected: language_model\.model\.layers\.7",
        ),
    ],
)
def test_what_fits_nowhere_is_named(
    folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        load(rewritten(folder, change))


@pytest.mark.parametrize("name", [f"{QUERIES}.weight", "connector.fc1.bias"])
@pytest.mark.parametrize("stored", [torch.int8, torch.uint8])
def test_weights_rounded_to_integers_are_not_taken_for_weights(
    folder: Path, tmp_path: Path, name: str, stored: torch.dtype, capsys: pytest.CaptureFixture[str]
) -> None:
    rewritten(folder, lambda tensors: tensors | {name: tensors[name].mul(100).to(stored)})
    with pytest.raises(ValueError, match="rounded to integers") as caught:
        load(folder)
    assert f"1 of them: {name} (" in str(caught.value)
    command = ["export", str(folder), "--out", str(tmp_path / "out"), "--dtype", "bfloat16"]
    assert staged(command) != 0
    assert "rounded to integers" in capsys.readouterr().err


def test_an_autoencoder_and_a_lora_of_integers_are_refused(
    folder: Path, lora: Path, tmp_path: Path
) -> None:
    path = lora / "adapter_model.safetensors"
    save_file({k: t.to(torch.int8) for k, t in load_file(path).items()}, path)
    with pytest.raises(ValueError, match="are no LoRA"):
        adapters.read_adapter(lora)
    path = folder / "ae.safetensors"
    save_file({k: t.to(torch.int32) for k, t in load_file(path).items()}, path)
    with pytest.raises(ValueError, match=r"ae\.safetensors holds weights that were rounded"):
        load(folder)


def test_weights_in_eight_bits_of_real_numbers_load(folder: Path) -> None:
    name = f"{QUERIES}.weight"
    narrow = load_file(folder / "ema.safetensors")[name].to(torch.float8_e4m3fn)
    rewritten(folder, lambda tensors: tensors | {name: narrow})
    loaded = load(folder).model.get_submodule("layers.0.und.q_proj").weight
    assert torch.equal(loaded, narrow.float())


def test_pieces_of_torchs_distributed_checkpoints_say_what_to_do(folder: Path) -> None:
    (folder / "ema.safetensors").unlink()
    for rank in range(20):
        (folder / f"__{rank}_0.distcp").write_bytes(b"")
    with pytest.raises(ValueError, match=r"__0_0\.distcp, .* and 8 more; .* Convert them to"):
        load(folder)


def test_several_files_of_unknown_names_are_not_guessed_at(folder: Path) -> None:
    (folder / "ema.safetensors").rename(folder / "a.safetensors")
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")
    with pytest.raises(ValueError, match=r"several files of weights.*a\.safetensors, b\.safe"):
        load(folder)


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("checkpoint", "folder of a run; its checkpoint is"),
        ("adapter", "folder of a run; its LoRA is"),
        ("state", "has not ended; `staged train`"),
    ],
)
def test_the_folder_of_a_run_is_told_from_a_checkpoint(
    tmp_path: Path, inside: str, words: str
) -> None:
    (tmp_path / "run" / inside).mkdir(parents=True)
    with pytest.raises(ValueError, match=words):
        load(tmp_path / "run")


def test_weights_alone_say_where_to_take_the_rest_from(folder: Path) -> None:
    (folder / "vit_config.json").unlink()
    (folder / "ae.safetensors").unlink()
    for read in (load, checkpoint.look):
        with pytest.raises(ValueError) as caught:
            read(folder)
        message = str(caught.value)
        assert "ae.safetensors" in message and "vit_config.json missing" in message
        assert f"staged export {folder} --like CHECKPOINT --out FOLDER" in message


# --- staged export -------------------------------------------------------------------------------


def test_an_export_of_our_own_is_the_same_file(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert staged(["export", str(folder), "--out", str(out)]) == 0
    for path in folder.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name


def test_bare_weights_of_a_trainer_become_a_whole_checkpoint(
    saved: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    in_parts(rewritten(folder, FOREIGN["without tables"]))
    for path in folder.glob("model-*"):
        path.rename(bare / path.name)
    argv = ["export", str(bare), "--like", str(saved), "--out", str(tmp_path / "out"), "--json"]
    assert staged(argv) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["computed"] == list(TABLES)
    assert figures["renamed"] == figures["tensors"] - 2
    found, expected = load(tmp_path / "out"), load(saved)
    assert_same_tensors(found.model, expected.model)
    assert_same_tensors(found.autoencoder, expected.autoencoder)
    assert found.tokenizer is not None and found.config == expected.config


def test_an_export_can_change_the_type(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = ["export", str(folder), "--dtype", "bfloat16", "--out", str(out)]
    assert staged(argv) == 0
    stored = load_file(out / "ema.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    for name, tensor in load_file(folder / "ema.safetensors").items():
        assert torch.equal(stored[name], tensor.bfloat16())


def test_nothing_is_written_over(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert staged(["export", str(folder), "--out", str(folder)]) == 1
    assert "is where the checkpoint is read from" in capsys.readouterr().err
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    assert staged(["export", str(folder), "--out", str(out)]) == 1
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize("writes", ["weights", "autoencoder", "lora"])
def test_what_does_not_come_back_from_the_disk_is_not_written(
    writes: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = load(saved)
    model, tokenizer = there.model, there.tokenizer
    bad = {"weights": "ema", "autoencoder": "ae", "lora": "adapter_model"}[writes] + ".safetensors"

    def flips_a_bit(path: Path, *rest: object, **named: object) -> None:
        write_safetensors(path, *rest, **named)
        if path.name == bad:
            data = bytearray(path.read_bytes())
            data[-3] ^= 1
            path.write_bytes(data)

    for module in (checkpoint, adapters, rewriting):
        monkeypatch.setattr(module, "write_safetensors", flips_a_bit)
    folder = tmp_path / "new"
    with pytest.raises(OSError, match=rf"came back from .*{bad} as something else"):
        if writes == "lora":
            layer = modules_of(CONFIG.transformer, "gen")[0]
            add_lora(model, {layer: LowRank(rank=1, scale=1)}, seed=0)
            write_adapter(folder, model, base=str(saved))
        else:
            checkpoint.save(folder, model=model, autoencoder=there.autoencoder, tokenizer=tokenizer)
    assert not folder.exists()
    if writes != "lora":
        assert staged(["export", str(saved), "--out", str(folder)]) == 1
        assert not folder.exists()


def test_weights_that_are_not_finite_are_not_exported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewritten(folder, lambda t: t | {"llm2vae.bias": torch.full((16,), torch.nan)})
    assert staged(["export", str(folder), "--out", str(tmp_path / "out")]) == 1
    assert "llm2vae.bias as torch.float32 has NaN" in capsys.readouterr().err


# --- staged merge-lora ---------------------------------------------------------------------------


@pytest.fixture
def lora(folder: Path, tmp_path: Path) -> Path:
    model = load(folder).model
    for expert, low_rank in (
        ("und", LowRank(rank=2, scale=1.5)),
        ("gen", LowRank(rank=3, scale=1)),
    ):
        add_lora(model, dict.fromkeys(modules_of(CONFIG.transformer, expert), low_rank), seed=0)
    generator = torch.Generator().manual_seed(0)
    for layer in lora_layers(model).values():
        nn.init.normal_(layer.lora_b, std=0.3, generator=generator)
    return write_adapter(tmp_path / "lora", model, base=str(folder))


def merged_in_memory(lora: Path) -> Bagel:
    model = open_checkpoint(str(lora)).model
    merge_lora(model)
    return model


@pytest.mark.parametrize("base", [True, False])
def test_a_merged_checkpoint_is_weights_plus_lora(
    folder: Path, lora: Path, tmp_path: Path, base: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    named = ["--checkpoint", str(folder)] if base else []
    assert staged(["merge-lora", str(lora), *named, "--out", str(out)]) == 0
    assert "a LoRA was added to 28 of them" in capsys.readouterr().out
    found = load(out).model
    assert_same_tensors(found, merged_in_memory(lora))
    assert not torch.equal(
        found.layers[0].gen.q_proj.weight, load(folder).model.layers[0].gen.q_proj.weight
    )


def test_a_lora_is_merged_into_narrow_weights_by_way_of_float32(
    folder: Path, lora: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half"
    assert staged(["export", str(folder), "--dtype", "bfloat16", "--out", str(half)]) == 0
    out = tmp_path / "out"
    assert staged(["export", str(half), "--lora", str(lora), "--out", str(out)]) == 0
    wide = open_checkpoint(str(half), lora=lora).model
    merge_lora(wide)
    for name, tensor in load(out).model.state_dict().items():
        assert torch.equal(tensor, wide.state_dict()[name].bfloat16().float()), name


def test_a_lora_of_the_miniature_is_merged_by_name(tmp_path: Path) -> None:
    model = open_checkpoint("miniature:base").model
    add_lora(model, {"layers.0.gen.q_proj": LowRank(rank=1, scale=1)}, seed=0)
    nn.init.ones_(lora_layers(model)["layers.0.gen.q_proj"].lora_b)
    lora = write_adapter(tmp_path / "lora", model, base="miniature:base")
    assert staged(["merge-lora", str(lora), "--out", str(tmp_path / "out")]) == 0
    # Shipped in bfloat16, and so is what is merged.
    assert_same_tensors(load(tmp_path / "out").model, merged_in_memory(lora).bfloat16().float())
    assert load(tmp_path / "out").flows == open_checkpoint("miniature:base").flows
