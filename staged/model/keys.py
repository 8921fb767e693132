"""Upstream's names for our tensors, in both directions: see `named_tensors`.

Ours are the attribute paths of ``Bagel``. Upstream's are those of BAGEL's ``ema.safetensors``.
``Autoencoder`` has FLUX's own names.
"""

import re

__all__ = ["from_upstream_key", "to_upstream_key"]

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
