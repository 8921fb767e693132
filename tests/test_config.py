"""Reading and writing the published configuration files."""

import dataclasses
import json
from pathlib import Path

import pytest

from staged.model.config import AutoencoderConfig, BagelConfig, TransformerConfig, VisionConfig

PUBLISHED = Path(__file__).parents[1] / "configs/bagel_7b/model"


def tiny_config(**changes: object) -> BagelConfig:
    config = BagelConfig(
        transformer=TransformerConfig(
            hidden_size=32,
            intermediate_size=48,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            head_dim=8,
            vocab_size=40,
        ),
        vision=VisionConfig(
            hidden_size=24,
            intermediate_size=40,
            num_layers=2,
            num_heads=3,
            patch_size=8,
            positions_per_side=6,
        ),
        autoencoder=AutoencoderConfig(
            channels=32,
            multipliers=(1, 2, 1),
            num_blocks=1,
            latent_channels=4,
            scaling_factor=0.7,
            shift_factor=-0.02,
        ),
        max_latent_size=6,
        vit_max_patches_per_side=6,
    )
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def edit(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_published_files_give_the_published_sizes() -> None:
    config = BagelConfig.from_folder(PUBLISHED)
    assert config.vision.num_layers == 26  # the file says 27; features come from the last but one
    assert config.vision.positions_per_side == 70
    assert config.transformer.head_dim == 128
    assert config.autoencoder == AutoencoderConfig()
    assert config.pixels_per_latent_token == 16
    assert config.latent_token_dim == 64


@pytest.mark.parametrize("config", [tiny_config(), BagelConfig.from_folder(PUBLISHED)])
def test_written_files_read_back_equal(config: BagelConfig, tmp_path: Path) -> None:
    config.write(tmp_path)
    assert BagelConfig.from_folder(tmp_path) == config


def test_a_head_dim_that_hidden_size_does_not_imply_survives(tmp_path: Path) -> None:
    config = tiny_config()
    wide = dataclasses.replace(config.transformer, head_dim=16)
    config = dataclasses.replace(config, transformer=wide)
    config.write(tmp_path)
    assert BagelConfig.from_folder(tmp_path) == config


def test_miniature_sizes_follow_from_the_autoencoder() -> None:
    config = tiny_config()
    assert config.autoencoder.downsample == 4
    assert config.pixels_per_latent_token == 8
    assert config.latent_token_dim == 16


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
        ("llm_config.json", {"transformers_version": "9"}, None),
        ("vit_config.json", {"num_hidden_layers": 1}, "leaves 0 layers"),
        ("vit_config.json", {"layer_norm_eps": float("nan")}, "layer_norm_eps"),
    ],
)
def test_files_are_read_strictly(
    name: str, values: dict[str, object], message: str | None, tmp_path: Path
) -> None:
    tiny_config().write(tmp_path)
    edit(tmp_path, name, **values)
    if message is None:
        BagelConfig.from_folder(tmp_path)
    else:
        with pytest.raises(ValueError, match=message):
            BagelConfig.from_folder(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
def test_damaged_files_are_named(content: str, tmp_path: Path) -> None:
    tiny_config().write(tmp_path)
    (tmp_path / "vit_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"vit_config\.json"):
        BagelConfig.from_folder(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    tiny_config().write(tmp_path)
    (tmp_path / "llm_config.json").unlink()
    with pytest.raises(ValueError, match=r"llm_config\.json is missing"):
        BagelConfig.from_folder(tmp_path)
