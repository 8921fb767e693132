"""The published configuration files of a BAGEL, read and written.

A checkpoint folder carries three JSON files: ``config.json`` (how the parts are joined),
``llm_config.json`` (a Qwen2 decoder) and ``vit_config.json`` (a SigLIP tower). Facts that the
published ``config.json`` leaves to the FLUX autoencoder's source (its width, depth and latent
statistics) may stand in ``vae_config``; without them FLUX's own values hold.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from staged.model.config import AutoencoderConfig, BagelConfig, TransformerConfig, VisionConfig
from staged.model.config_section import Section

__all__ = ["CONFIG_FILES", "read_config", "write_config"]

CONFIG_FILES = ("config.json", "llm_config.json", "vit_config.json")

# The published vit_config.json counts SigLIP's layers; BAGEL takes features from the one before
# the last and builds no layer after it: built = file + 1 + VIT_SELECT_LAYER.
VIT_SELECT_LAYER = -2

_BUILT = {
    "connector_act": "gelu_pytorch_tanh",
    "interpolate_pos": False,
    "visual_gen": True,
    "visual_und": True,
}
_LLM_BUILT = {
    "hidden_act": "silu",
    "layer_module": "Qwen2MoTDecoderLayer",
    "qk_norm": True,
    "tie_word_embeddings": False,
}
"""What a file says of how the parts are built; there is no other way here."""
_LLM_SIZES = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "vocab_size": "vocab_size",
}
_VIT_SIZES = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_heads": "num_attention_heads",
    "patch_size": "patch_size",
}
"""Our name of a size to that in the file."""
_VAE_KEYS = ("channels", "multipliers", "num_blocks", "scaling_factor", "shift_factor")


def read_config(folder: str | Path) -> BagelConfig:
    """Read the three published files of a checkpoint folder.

    Keys that change nothing here (token ids, library versions) are passed over; a key that
    asks for an architecture other than the one built is an error.

    Raises:
        ValueError: A file is missing, malformed, out of range, or describes another model.
    """
    folder = Path(folder)
    top = Section.read(folder / "config.json")
    llm = Section.read(folder / "llm_config.json")
    vit = Section.read(folder / "vit_config.json")
    vae = top.section("vae_config")
    top.expect(**_BUILT)
    return BagelConfig(
        transformer=_transformer_from(llm),
        vision=_vision_from(vit),
        autoencoder=_autoencoder_from(vae),
        latent_patch_size=top.integer("latent_patch_size", 2),
        max_latent_size=top.integer("max_latent_size"),
        vit_max_patches_per_side=top.integer("vit_max_num_patch_per_side"),
        timestep_shift=top.number("timestep_shift", 1.0),
    )


def write_config(config: BagelConfig, folder: str | Path) -> None:
    """Write the three published files into ``folder``, which must exist.

    ``read_config`` gives back an equal config; upstream's code reads the same files.
    """
    documents = {
        "config.json": _config_document(config),
        "llm_config.json": _llm_document(config.transformer),
        "vit_config.json": _vit_document(config.vision),
    }
    for name, document in documents.items():
        text = json.dumps(document, indent=2, sort_keys=True) + "\n"
        (Path(folder) / name).write_text(text, encoding="utf-8")


def _transformer_from(llm: Section) -> TransformerConfig:
    llm.expect(**_LLM_BUILT, use_sliding_window=False)
    llm.expect(attention_bias=True, mlp_bias=False, partial_rotary_factor=1.0)
    llm.expect_each("layer_types", "full_attention")
    sizes = {name: llm.integer(key) for name, key in _LLM_SIZES.items()}
    hidden_size, num_heads = sizes["hidden_size"], sizes["num_heads"]
    if hidden_size % num_heads and "head_dim" not in llm.values:
        raise ValueError(
            f"{llm.place}: hidden_size {hidden_size} is not a multiple of "
            f"num_attention_heads {num_heads}; say head_dim"
        )
    return TransformerConfig(
        **sizes,
        head_dim=llm.integer("head_dim", hidden_size // num_heads),
        rope_theta=_rope_theta(llm),
        rms_norm_eps=llm.number("rms_norm_eps", 1e-6),
    )


def _rope_theta(llm: Section) -> float:
    """Rope's base, however a version of transformers spells it.

    Up to version 4 it is `rope_theta` beside `rope_scaling`; from 5 on `rope_parameters` holds
    both. A file that says it nowhere is refused: libraries disagree on the default.
    """
    said = {}
    if llm.values.get("rope_theta") is not None:
        said["rope_theta"] = llm.number("rope_theta")
    for key in ("rope_parameters", "rope_scaling"):
        if llm.values.get(key) is None:
            continue
        rope = llm.section(key)
        rope.only("rope_theta", "rope_type", "type", "partial_rotary_factor")
        rope.expect(rope_type="default", type="default", partial_rotary_factor=1.0)
        if "rope_theta" in rope.values:
            said[f"{key}.rope_theta"] = rope.number("rope_theta")
    if not said:
        raise ValueError(f"{llm.place}: neither rope_theta nor rope_parameters.rope_theta is there")
    if len(set(said.values())) > 1:
        both = " and ".join(f"{key} {value:g}" for key, value in said.items())
        raise ValueError(f"{llm.place}: {both} contradict one another; keep one")
    return next(iter(said.values()))


def _vision_from(vit: Section) -> VisionConfig:
    vit.expect(hidden_act="gelu_pytorch_tanh", rope=False, rope_parameters=None)
    sizes = {name: vit.integer(key) for name, key in _VIT_SIZES.items()}
    num_layers = vit.integer("num_hidden_layers") + 1 + VIT_SELECT_LAYER
    if num_layers < 1:
        raise ValueError(f"{vit.place}: num_hidden_layers leaves {num_layers} layers; give 2 up")
    return VisionConfig(
        **sizes,
        num_layers=num_layers,
        positions_per_side=vit.integer("image_size") // sizes["patch_size"],
        num_channels=vit.integer("num_channels", 3),
        layer_norm_eps=vit.number("layer_norm_eps", 1e-6),
    )


def _autoencoder_from(vae: Section) -> AutoencoderConfig:
    published = AutoencoderConfig()
    # FLUX's own code and diffusers have other names for these; a name that is not known would
    # leave FLUX's published value standing in its place.
    vae.only("downsample", "z_channels", *_VAE_KEYS)
    config = AutoencoderConfig(
        channels=vae.integer("channels", published.channels),
        multipliers=vae.integers("multipliers", published.multipliers),
        num_blocks=vae.integer("num_blocks", published.num_blocks),
        latent_channels=vae.integer("z_channels"),
        scaling_factor=vae.number("scaling_factor", published.scaling_factor),
        shift_factor=vae.number("shift_factor", published.shift_factor),
    )
    downsample = vae.integer("downsample")
    if downsample != config.downsample:
        raise ValueError(
            f"{vae.place}: downsample {downsample} does not fit the multipliers "
            f"{list(config.multipliers)}, which give {config.downsample}"
        )
    return config


def _config_document(config: BagelConfig) -> dict[str, Any]:
    autoencoder, published = config.autoencoder, AutoencoderConfig()
    vae: dict[str, Any] = {
        "z_channels": autoencoder.latent_channels,
        "downsample": autoencoder.downsample,
    }
    for item in fields(AutoencoderConfig):
        value = getattr(autoencoder, item.name)
        if item.name != "latent_channels" and value != getattr(published, item.name):
            vae[item.name] = value
    return {
        "architectures": ["BagelForConditionalGeneration"],
        "model_type": "bagel",
        **_BUILT,
        "latent_patch_size": config.latent_patch_size,
        "max_latent_size": config.max_latent_size,
        "timestep_shift": config.timestep_shift,
        "vae_config": vae,
        "vit_max_num_patch_per_side": config.vit_max_patches_per_side,
    }


def _llm_document(config: TransformerConfig) -> dict[str, Any]:
    document: dict[str, Any] = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        **_LLM_BUILT,
        **{key: getattr(config, name) for name, key in _LLM_SIZES.items()},
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.rms_norm_eps,
    }
    if config.head_dim * config.num_heads != config.hidden_size:
        document["head_dim"] = config.head_dim
    return document


def _vit_document(config: VisionConfig) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "hidden_act": "gelu_pytorch_tanh",
        **{key: getattr(config, name) for name, key in _VIT_SIZES.items()},
        "num_hidden_layers": config.num_layers - 1 - VIT_SELECT_LAYER,
        "image_size": config.positions_per_side * config.patch_size,
        "num_channels": config.num_channels,
        "layer_norm_eps": config.layer_norm_eps,
    }
