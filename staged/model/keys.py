"""Upstream's names for our tensors, in both directions: see `named_tensors`.

Ours are the attribute paths of ``Bagel`` and ``Autoencoder``. Upstream's are those of BAGEL's
``ema.safetensors`` and of FLUX's ``ae.safetensors``.
"""

import re

__all__ = ["autoencoder_keys", "from_upstream_key", "to_upstream_key"]

# No leading zeros: one tensor has one name.
_LAYER = re.compile(r"(?<=layers\.)(0|[1-9][0-9]*)(?=\.)")


def to_upstream_key(key: str) -> str:
    """Upstream's name of one of ``Bagel``'s tensors.

    Raises:
        ValueError: ``Bagel`` has no tensor of that name.
    """
    return _translate(key, _TABLES, _MODULES, "tensor of our model")


def from_upstream_key(key: str) -> str:
    """Our name of one of upstream's tensors.

    Raises:
        ValueError: BAGEL has no tensor of that name.
    """
    return _translate(key, _UPSTREAM_TABLES, _UPSTREAM_MODULES, "tensor of a BAGEL checkpoint")


def autoencoder_keys(num_levels: int, num_blocks: int) -> dict[str, str]:
    """FLUX's module names by diffusers' ones.

    FLUX numbers the decoder's levels from the image inwards, diffusers in order of computation.
    Shortcuts are listed for every block; only blocks that change width have one.

    Args:
        num_levels: Levels of the autoencoder.
        num_blocks: Residual blocks a level in the encoder; the decoder has one more.

    Returns:
        Ours to upstream's, without the final ``.weight`` or ``.bias``.
    """
    keys = {}
    for half in ("encoder", "decoder"):
        keys[f"{half}.conv_in"] = f"{half}.conv_in"
        keys[f"{half}.conv_norm_out"] = f"{half}.norm_out"
        keys[f"{half}.conv_out"] = f"{half}.conv_out"
        for ours, upstream in _MID_ATTENTION.items():
            keys[f"{half}.mid_block.attentions.0.{ours}"] = f"{half}.mid.attn_1.{upstream}"
        for block in range(2):
            _add_block(keys, f"{half}.mid_block.resnets.{block}", f"{half}.mid.block_{block + 1}")
    for level in range(num_levels):
        down, up = f"encoder.down.{level}", f"decoder.up.{num_levels - 1 - level}"
        for block in range(num_blocks):
            _add_block(
                keys, f"encoder.down_blocks.{level}.resnets.{block}", f"{down}.block.{block}"
            )
        for block in range(num_blocks + 1):
            _add_block(keys, f"decoder.up_blocks.{level}.resnets.{block}", f"{up}.block.{block}")
        if level < num_levels - 1:
            keys[f"encoder.down_blocks.{level}.downsamplers.0.conv"] = f"{down}.downsample.conv"
            keys[f"decoder.up_blocks.{level}.upsamplers.0.conv"] = f"{up}.upsample.conv"
    return keys


def _add_block(keys: dict[str, str], ours: str, upstream: str) -> None:
    for part in ("norm1", "conv1", "norm2", "conv2"):
        keys[f"{ours}.{part}"] = f"{upstream}.{part}"
    keys[f"{ours}.conv_shortcut"] = f"{upstream}.nin_shortcut"


_MID_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def _translate(key: str, tables: dict[str, str], modules: dict[str, str], kind: str) -> str:
    if key in tables:
        return tables[key]
    layer = _LAYER.search(key)
    module, _, leaf = _LAYER.sub("#", key, count=1).rpartition(".")
    if leaf not in ("weight", "bias") or module not in modules:
        raise ValueError(f"{key!r} names no {kind}")
    translated = f"{modules[module]}.{leaf}"
    return translated.replace("#", layer.group()) if layer else translated


_TABLES = {
    "latent_positions": "latent_pos_embed.pos_embed",
    "vision_positions": "vit_pos_embed.pos_embed",
}


def _modules() -> dict[str, str]:
    """Our modules to upstream's, layer numbers written as #."""
    llm, vit = "language_model.model", "vit_model.vision_model"
    table = {
        "embed_tokens": f"{llm}.embed_tokens",
        "lm_head": "language_model.lm_head",
        "connector.fc1": "connector.fc1",
        "connector.fc2": "connector.fc2",
        "latent_in": "vae2llm",
        "latent_out": "llm2vae",
        "time_embed.fc1": "time_embedder.mlp.0",
        "time_embed.fc2": "time_embedder.mlp.2",
        "vision.patch_embedding": f"{vit}.embeddings.patch_embedding",
        "vision.position_embedding": f"{vit}.embeddings.position_embedding",
        "vision.post_layernorm": f"{vit}.post_layernorm",
        "vision.layers.#.attn_norm": f"{vit}.encoder.layers.#.layer_norm1",
        "vision.layers.#.mlp_norm": f"{vit}.encoder.layers.#.layer_norm2",
        "vision.layers.#.o_proj": f"{vit}.encoder.layers.#.self_attn.out_proj",
    }
    for part in ("q_proj", "k_proj", "v_proj"):
        table[f"vision.layers.#.{part}"] = f"{vit}.encoder.layers.#.self_attn.{part}"
    for part in ("fc1", "fc2"):
        table[f"vision.layers.#.{part}"] = f"{vit}.encoder.layers.#.mlp.{part}"
    for expert, suffix in (("und", ""), ("gen", "_moe_gen")):
        ours, upstream = f"layers.#.{expert}", f"{llm}.layers.#"
        table[f"final_norm.{expert}"] = f"{llm}.norm{suffix}"
        table[f"{ours}.attn_norm"] = f"{upstream}.input_layernorm{suffix}"
        table[f"{ours}.mlp_norm"] = f"{upstream}.post_attention_layernorm{suffix}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"):
            table[f"{ours}.{part}"] = f"{upstream}.self_attn.{part}{suffix}"
        for part in ("gate_proj", "up_proj", "down_proj"):
            table[f"{ours}.{part}"] = f"{upstream}.mlp{suffix}.{part}"
    return table


_MODULES = _modules()
_UPSTREAM_TABLES = {upstream: ours for ours, upstream in _TABLES.items()}
_UPSTREAM_MODULES = {upstream: ours for ours, upstream in _MODULES.items()}
