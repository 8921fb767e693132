"""Checkpoints in the published layout: what is read, what is refused, what is written."""

import dataclasses
import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from staged.model import checkpoint
from staged.model.autoencoder import Autoencoder
from staged.model.bagel import Bagel
from staged.model.checkpoint import load, save
from staged.model.config import AutoencoderConfig, BagelConfig, TransformerConfig, VisionConfig
from staged.model.keys import from_upstream_key, to_upstream_key
from staged.model.open import open_checkpoint
from staged.model.tokenizer import train_tokenizer

CONFIG = BagelConfig(
    transformer=TransformerConfig(
        hidden_size=32,
        intermediate_size=24,
        num_layers=2,
        num_heads=4,
        num_kv_heads=1,
        head_dim=8,
        vocab_size=300,
    ),
    vision=VisionConfig(
        hidden_size=12,
        intermediate_size=20,
        num_layers=2,
        num_heads=3,
        patch_size=4,
        positions_per_side=5,
    ),
    autoencoder=AutoencoderConfig(
        channels=32,
        multipliers=(1, 2, 1),
        num_blocks=1,
        latent_channels=4,
        scaling_factor=0.7,
        shift_factor=-0.02,
    ),
    max_latent_size=3,
    vit_max_patches_per_side=4,
)
MODEL_FILE = "ema.safetensors"


def build(seed: int = 0) -> tuple[Bagel, Autoencoder]:
    torch.manual_seed(seed)
    model = Bagel(CONFIG)
    model.init_weights(torch.Generator().manual_seed(seed))
    return model, Autoencoder(CONFIG.autoencoder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, autoencoder = build()
    tokenizer = train_tokenizer(["a red circle above a blue star"], 290)
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    return save(folder, model=model, autoencoder=autoencoder, tokenizer=tokenizer)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(folder / MODEL_FILE) | changes
    save_file({key: t for key, t in tensors.items() if t is not None}, folder / MODEL_FILE)


def assert_same_tensors(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_saved_checkpoint_loads_back_exactly(saved: Path) -> None:
    loaded = load(saved)
    model, autoencoder = build()
    assert loaded.config == CONFIG
    assert_same_tensors(loaded.model, model)
    assert_same_tensors(loaded.autoencoder, autoencoder)
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("a blue star")) == "a blue star"
    assert not loaded.model.training
    assert not loaded.autoencoder.training


def test_files_carry_upstream_names_and_shapes(saved: Path) -> None:
    tensors = load_file(saved / MODEL_FILE)
    assert tensors["language_model.model.layers.1.self_attn.q_norm_moe_gen.weight"].shape == (8,)
    assert tensors["latent_pos_embed.pos_embed"].shape == (9, 32)
    ae = load_file(saved / "ae.safetensors")
    assert ae["decoder.mid.attn_1.proj_out.weight"].shape == (32, 32, 1, 1)
    # FLUX counts the decoder's levels from the image inwards: the widest is level 1 here.
    assert ae["decoder.up.1.block.0.nin_shortcut.weight"].shape == (64, 32, 1, 1)


def test_names_map_both_ways_for_every_tensor() -> None:
    model, _ = build()
    names = list(model.state_dict())
    upstream = [to_upstream_key(name) for name in names]
    assert len(set(upstream)) == len(names)
    assert [from_upstream_key(key) for key in upstream] == names


@pytest.mark.parametrize("key", ["layers.0.und.q_proj", "latent_positions.weight", "", "a.b"])
def test_a_name_of_no_tensor_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="names no"):
        to_upstream_key(key)
    with pytest.raises(ValueError, match="names no"):
        from_upstream_key(key)


def test_weights_can_be_stored_and_held_in_bfloat16(tmp_path: Path) -> None:
    model, autoencoder = build()
    save(tmp_path / "half", model=model, autoencoder=autoencoder, dtype=torch.bfloat16)
    assert {t.dtype for t in load_file(tmp_path / "half" / MODEL_FILE).values()} == {torch.bfloat16}
    held = load(tmp_path / "half", dtype=torch.bfloat16)
    assert_same_tensors(held.model, model.bfloat16())
    assert {t.dtype for t in held.autoencoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("source", ["miniature:base", "miniature:fresh", "folder"])
def test_a_model_is_opened_in_the_type_that_it_runs_in(source: str, folder: Path) -> None:
    """It was read in float32 and narrowed then: 54 GiB on the device, where 27 were asked for."""
    source = str(folder) if source == "folder" else source
    narrow = open_checkpoint(source, dtype=torch.bfloat16)
    assert_same_tensors(narrow.model, open_checkpoint(source).model.bfloat16())
    assert {t.dtype for t in narrow.autoencoder.parameters()} == {torch.float32}


def test_other_weights_than_the_models_own_can_be_saved(tmp_path: Path) -> None:
    model, autoencoder = build()
    average = {name: torch.full_like(p, 0.5) for name, p in model.named_parameters()}
    save(tmp_path / "ema", model=model, autoencoder=autoencoder, weights=average)
    loaded = load(tmp_path / "ema").model
    assert all((p == 0.5).all() for p in loaded.parameters())
    assert torch.equal(loaded.latent_positions, model.latent_positions)
    with pytest.raises(ValueError, match="names no tensor"):
        save(tmp_path / "x", model=model, autoencoder=autoencoder, weights={"spare": average})
    wrong = {"lm_head.weight": torch.zeros(2, 2)}
    with pytest.raises(ValueError, match="of another shape"):
        save(tmp_path / "x", model=model, autoencoder=autoencoder, weights=wrong)
    assert not (tmp_path / "x").exists()


def test_missing_position_tables_are_computed(folder: Path) -> None:
    edit_weights(folder, **{"latent_pos_embed.pos_embed": None, "vit_pos_embed.pos_embed": None})
    assert_same_tensors(load(folder).model, build()[0])


def test_table_sizes_come_from_the_weights_not_from_the_configuration(folder: Path) -> None:
    document = json.loads((folder / "config.json").read_text())
    document |= {"max_latent_size": 32, "vit_max_num_patch_per_side": 70}
    (folder / "config.json").write_text(json.dumps(document))
    assert load(folder).config == CONFIG


def test_all_tensors_that_do_not_fit_are_listed_at_once(folder: Path) -> None:
    edit_weights(
        folder,
        **{
            "vae2llm.bias": None,
            "llm2vae.bias": torch.zeros(3),
            "language_model.model.layers.2.input_layernorm.weight": torch.zeros(16),
            "lora.weight": torch.zeros(1),
        },
    )
    with pytest.raises(ValueError) as caught:
        load(folder)
    message = str(caught.value)
    assert "1 missing: vae2llm.bias" in message
    assert "2 unexpected: language_model.model.layers.2.input_layernorm.weight, lora.w" in message
    assert "1 of another shape: llm2vae.bias [3], expected [16]" in message


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused_by_name(folder: Path, bad: float) -> None:
    """They drew black pictures."""
    edit_weights(folder, **{"llm2vae.bias": torch.full((16,), bad)})
    with pytest.raises(ValueError, match=r"1 not finite .*: llm2vae\.bias"):
        load(folder)


def test_an_autoencoder_that_is_not_finite_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "ae.safetensors")
    tensors["decoder.conv_out.bias"][1] = torch.nan
    save_file(tensors, folder / "ae.safetensors")
    with pytest.raises(ValueError, match=r"1 not finite .*: decoder\.conv_out\.bias"):
        load(folder)


def test_numbers_that_a_narrow_type_makes_infinite_are_refused(folder: Path) -> None:
    edit_weights(folder, **{"llm2vae.bias": torch.full((16,), 1e6)})
    load(folder)
    with pytest.raises(ValueError, match=r"1 not finite .*: llm2vae\.bias"):
        load(folder, dtype=torch.float16)


def test_a_checkpoint_that_is_not_finite_is_not_saved(folder: Path) -> None:
    model, autoencoder = build(seed=1)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"not finite .*lm_head"):
        save(folder, model=model, autoencoder=autoencoder)
    assert_same_tensors(load(folder).model, build()[0])


def test_a_second_autoencoder_width_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "ae.safetensors")
    tensors["decoder.conv_in.weight"] = torch.zeros(32, 8, 3, 3)
    save_file(tensors, folder / "ae.safetensors")
    with pytest.raises(ValueError, match=r"encoder\.conv_out"):
        load(folder)


def shard(folder: Path) -> None:
    tensors = load_file(folder / MODEL_FILE)
    (folder / MODEL_FILE).unlink()
    weight_map = {}
    for number in range(2):
        name = f"model-{number + 1:05}-of-00002.safetensors"
        part = dict(list(tensors.items())[number::2])
        save_file(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_sharded_weights_load(folder: Path) -> None:
    shard(folder)
    assert_same_tensors(load(folder).model, build()[0])


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "model.bin", 3])
def test_an_index_cannot_lead_out_of_its_folder(folder: Path, name: object) -> None:
    shard(folder)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["lora.weight"] = name
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match="no safetensors file beside it"):
        load(folder)


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": 3}', "{"])
def test_a_damaged_index_is_named(folder: Path, content: str) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"index\.json( is not an index|: not valid JSON)"):
        load(folder)


def test_formats_that_can_run_code_are_refused_by_name(folder: Path) -> None:
    (folder / MODEL_FILE).rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin; such files can run code"):
        load(folder)


def test_a_truncated_file_is_named(folder: Path) -> None:
    whole = (folder / MODEL_FILE).read_bytes()
    (folder / MODEL_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"ema\.safetensors is no readable safetensors"):
        load(folder)


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(folder: Path) -> None:
    corpus = ["one photo shows some red circle above another blue star drawn below"] * 9
    train_tokenizer(corpus, 320).save_pretrained(folder)
    with pytest.raises(ValueError, match="its tokenizer uses"):
        load(folder)


def test_an_interrupted_save_leaves_the_earlier_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_safetensors", stop)
    model, autoencoder = build(seed=1)
    with pytest.raises(KeyboardInterrupt):
        save(folder, model=model, autoencoder=autoencoder)
    assert_same_tensors(load(folder).model, build()[0])
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_save_replaces_the_earlier_checkpoint(folder: Path) -> None:
    model, autoencoder = build(seed=1)
    save(folder, model=model, autoencoder=autoencoder)
    assert_same_tensors(load(folder).model, model)
    assert load(folder).tokenizer is None
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_hub_id_is_read_from_the_cache_when_offline(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ValueError, match="did not come from the Hub"):
        load("someone/tiny-bagel")
    cached = tmp_path / "hub/models--someone--tiny-bagel"
    shutil.copytree(folder, cached / "snapshots" / ("0" * 40))
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("0" * 40)
    assert_same_tensors(load("someone/tiny-bagel").model, build()[0])


@pytest.mark.parametrize("source", ["no/such/folder", "nothing", "a/../b"])
def test_a_source_that_is_neither_folder_nor_hub_id_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="neither a checkpoint folder nor a Hub id"):
        load(source)


def test_the_configuration_may_be_given(folder: Path) -> None:
    (folder / "config.json").unlink()
    given = dataclasses.replace(CONFIG, timestep_shift=3.0)
    assert load(folder, config=given).config == given
