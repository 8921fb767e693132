"""Reading and writing the published configuration files."""

import dataclasses
import json
from pathlib import Path

import pytest
from test_checkpoint import CONFIG

from staged.model.config import AutoencoderConfig, BagelConfig
from staged.model.config_files import read_config, write_config

PUBLISHED = Path(__file__).parents[1] / "configs/bagel_7b/model"


def edit(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_published_files_give_the_published_sizes() -> None:
    config = read_config(PUBLISHED)
    assert config.vision.num_layers == 26  # the file says 27; features come from the last but one
    assert config.vision.positions_per_side == 70
    assert config.transformer.head_dim == 128
    assert config.autoencoder == AutoencoderConfig()
    assert config.pixels_per_latent_token == 16
    assert config.latent_token_dim == 64


@pytest.mark.parametrize("config", [CONFIG, read_config(PUBLISHED)])
def test_written_files_read_back_equal(config: BagelConfig, tmp_path: Path) -> None:
    write_config(config, tmp_path)
    assert read_config(tmp_path) == config


def test_a_head_dim_that_hidden_size_does_not_imply_survives(tmp_path: Path) -> None:
    wide = dataclasses.replace(CONFIG.transformer, head_dim=16)
    config = dataclasses.replace(CONFIG, transformer=wide)
    write_config(config, tmp_path)
    assert read_config(tmp_path) == config


def test_miniature_sizes_follow_from_the_autoencoder() -> None:
    assert CONFIG.autoencoder.downsample == 4
    assert CONFIG.pixels_per_latent_token == 8
    assert CONFIG.latent_token_dim == 16


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("config.json", {"interpolate_pos": True}, "interpolate_pos is True"),
        ("config.json", {"connector_act": "relu"}, "connector_act"),
        ("config.json", {"max_latent_size": None}, "max_latent_size is missing"),
        ("config.json", {"max_latent_size": 2**40}, "max_latent_size is 1099511627776"),
        ("config.json", {"timestep_shift": 0}, "timestep_shift"),
        ("config.json", {"vae_config": {"z_channels": 4, "downsample": 8}}, None),
        ("config.json", {"vae_config": {"z_channels": 4, "downsample": 4}}, "downsample 4"),
        ("config.json", {"vae_config": []}, "vae_config is"),
        ("llm_config.json", {"hidden_size": "32"}, "hidden_size is '32'"),
        ("llm_config.json", {"num_hidden_layers": True}, "num_hidden_layers is True"),
        ("llm_config.json", {"num_key_value_heads": 3}, "num_kv_heads 3"),
        ("llm_config.json", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("llm_config.json", {"tie_word_embeddings": True}, "tie_word_embeddings"),
        ("llm_config.json", {"rope_scaling": {"type": "yarn"}}, "rope_scaling"),
        ("llm_config.json", {"rope_scaling": {"rope_type": "default"}}, None),
        ("llm_config.json", {"rope_parameters": {"rope_theta": 5e5}}, "contradict one another"),
        ("llm_config.json", {"rope_theta": None}, "neither rope_theta nor rope_parameters"),
        ("llm_config.json", {"rope_theta": "1e6"}, "rope_theta is '1e6'"),
        ("llm_config.json", {"attention_bias": False}, "attention_bias is False"),
        ("llm_config.json", {"layer_types": ["full_attention"] * 2}, None),
        (
            "llm_config.json",
            {"layer_types": ["full_attention", "sliding_attention"]},
            "layer_types has 'sliding_attention'",
        ),
        ("llm_config.json", {"transformers_version": "9"}, None),
        ("vit_config.json", {"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters"),
        (
            "config.json",
            {"vae_config": {"z_channels": 4, "downsample": 8, "scale_factor": 0.5}},
            "scale_factor is not supported; did you mean 'scaling_factor'",
        ),
        ("vit_config.json", {"num_hidden_layers": 1}, "leaves 0 layers"),
        ("vit_config.json", {"layer_norm_eps": float("nan")}, "NaN is not JSON"),
    ],
)
def test_files_are_read_strictly(
    name: str, values: dict[str, object], message: str | None, tmp_path: Path
) -> None:
    write_config(CONFIG, tmp_path)
    edit(tmp_path, name, **values)
    if message is None:
        read_config(tmp_path)
    else:
        with pytest.raises(ValueError, match=message):
            read_config(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
def test_damaged_files_are_named(content: str, tmp_path: Path) -> None:
    write_config(CONFIG, tmp_path)
    (tmp_path / "vit_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"vit_config\.json"):
        read_config(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_config(CONFIG, tmp_path)
    (tmp_path / "llm_config.json").unlink()
    with pytest.raises(ValueError, match=r"llm_config\.json is missing"):
        read_config(tmp_path)


def newer(folder: Path, rope: object) -> Path:
    """Write a folder whose language model says its rope as transformers 5 does."""
    write_config(CONFIG, folder)
    path = folder / "llm_config.json"
    values = json.loads(path.read_text())
    del values["rope_theta"]
    path.write_text(json.dumps(values | {"rope_parameters": rope}))
    return folder


def test_the_newer_spelling_of_rope_is_read(tmp_path: Path) -> None:
    """It was passed over, and theta was 1e6 whatever the file said."""
    folder = newer(tmp_path, {"rope_theta": 12345.0, "rope_type": "default"})
    assert read_config(folder).transformer.rope_theta == 12345.0


def test_what_transformers_itself_writes_is_read(tmp_path: Path) -> None:
    from transformers import Qwen2Config

    write_config(CONFIG, tmp_path)
    before = json.loads((tmp_path / "llm_config.json").read_text())
    kept = {k: v for k, v in before.items() if k not in ("rope_theta", "architectures")}
    Qwen2Config(**kept, rope_theta=54321.0).save_pretrained(tmp_path / "llm")
    (tmp_path / "llm" / "config.json").replace(tmp_path / "llm_config.json")
    assert read_config(tmp_path).transformer.rope_theta == 54321.0


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0}, "factor is not supported"),
        ({"rope_theta": 1e6, "rope_type": "llama3"}, "rope_type is 'llama3'"),
        ({"rope_theta": 1e6, "partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"full_attention": {"rope_theta": 1e6}}, "full_attention is not supported"),
        ({"rope_type": "default"}, "neither rope_theta nor"),
        ([1e6], "rope_parameters is"),
    ],
)
def test_rope_that_is_not_built_here_is_refused(rope: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_config(newer(tmp_path, rope))


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """The second one silently replaced the first."""
    write_config(CONFIG, tmp_path)
    path = tmp_path / "llm_config.json"
    path.write_text(path.read_text().replace("{", '{"rope_theta": 5.0,', 1))
    with pytest.raises(ValueError, match=r"llm_config\.json: .*rope_theta"):
        read_config(tmp_path)


def test_tokenizer_files_that_contradict_one_another_are_refused(tmp_path: Path) -> None:
    from staged.model.tokenizer import BagelTokenizer, train_tokenizer

    train_tokenizer(["a red circle"], 300).save_pretrained(tmp_path)
    BagelTokenizer.load(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["added_tokens_decoder"]["7"] = settings["added_tokens_decoder"].pop("1")
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"the id 7, tokenizer\.json gives it 1"):
        BagelTokenizer.load(tmp_path)
