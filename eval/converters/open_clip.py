"""CLIP checkpoints in open_clip's layout, such as HPS v2.1's, for transformers.

Nothing else knows open_clip's names. Every key must be used and every weight of the model be
found, or nothing is converted. HPS v2.1 is a ViT-H/14 fine-tuned on people's choices
(tgxs002/HPSv2, `HPS_v2.1_compressed.pt`); its score is the plain cosine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from eval.converters.pickled import read_checkpoint
from staged.model.weights import check_weights

TEXT_HEAD_DIM, VISION_HEAD_DIM = 64, 80
"""Widths of a head of attention in ViT-H/14; the weights do not tell."""

_TOWERS = {"visual.transformer": "vision_model", "transformer": "text_model"}
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_RENAMED = {
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    **{
        f"{source}.{kind}": f"{target}.{kind}"
        for source, target in (
            ("visual.ln_pre", "vision_model.pre_layrnorm"),
            ("visual.ln_post", "vision_model.post_layernorm"),
            ("ln_final", "text_model.final_layer_norm"),
        )
        for kind in ("weight", "bias")
    },
}
_PROJECTIONS = {
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
}
_IN_BLOCK = re.compile(r"(visual\.transformer|transformer)\.resblocks\.(\d+)\.(.+)\.(weight|bias)")
_FUSED = re.compile(
    r"(visual\.transformer|transformer)\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)"
)


def convert_file(checkpoint: Path, folder: Path, tokenizer: str | Path) -> None:
    """Write a checkpoint as a folder of transformers: safetensors, config and tokenizer.

    Args:
        checkpoint: File of open_clip: a state dictionary, or one under `state_dict`.
        folder: Where to.
        tokenizer: CLIP's tokenizer, a folder or Hub id; it is kept beside the weights.

    Raises:
        ValueError: not such a checkpoint, or no such tokenizer.
        OSError: a file cannot be read or written.
    """
    state = read_checkpoint(checkpoint)
    inner = state.get("state_dict", state)
    if not isinstance(inner, dict):
        raise ValueError(f"{checkpoint}: state_dict is a {type(inner).__name__}")
    model = convert_model(inner)
    try:
        tokens = CLIPTokenizer.from_pretrained(str(tokenizer))
    except OSError as error:
        raise ValueError(f"{tokenizer}: no tokenizer of CLIP there: {error}") from None
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    source = {"layout": "open_clip", "checkpoint": checkpoint.name}
    (folder / "source.json").write_text(json.dumps(source) + "\n", encoding="utf-8")


def convert_model(state: Mapping[str, Any]) -> CLIPModel:
    """Build the model of transformers with these weights, in float32.

    Args:
        state: In open_clip's layout, of a ViT with the exact GELU and the heads of ViT-H/14.

    Raises:
        ValueError: a key that is unknown or missing, shapes that do not fit, or weights that are
            not finite.
    """
    model = CLIPModel(_config(state))
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        # The causal mask; transformers makes its own.
        if key != "attn_mask":
            converted |= {name: part.float() for name, part in _converted(key, value).items()}
    # Positions by number: a buffer here, computed there.
    expected = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if not name.endswith("position_ids")
    }
    check_weights("the checkpoint", converted, expected)
    model.load_state_dict(converted, strict=False)
    model.eval()
    return model


def _converted(key: str, value: Any) -> dict[str, Tensor]:
    if not isinstance(value, Tensor):
        raise ValueError(f"{key}: expected a tensor, got {type(value).__name__}")
    if key in _RENAMED:
        return {_RENAMED[key]: value}
    if key in _PROJECTIONS:
        # A matrix to multiply with there, a linear layer here.
        return {_PROJECTIONS[key]: value.T.contiguous()}
    if match := _FUSED.fullmatch(key):
        prefix = f"{_TOWERS[match[1]]}.encoder.layers.{match[2]}.self_attn"
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"{prefix}.{name}_proj.{match[3]}": part.clone() for name, part in parts}
    match = _IN_BLOCK.fullmatch(key)
    if match is None or match[3] not in _BLOCK:
        raise ValueError(f"{key}: no weight of open_clip's ViT and text transformer")
    return {f"{_TOWERS[match[1]]}.encoder.layers.{match[2]}.{_BLOCK[match[3]]}.{match[4]}": value}


def _config(state: Mapping[str, Any]) -> CLIPConfig:
    try:
        vocab_size, text_width = state["token_embedding.weight"].shape
        vision_width, _, patch_size, _ = state["visual.conv1.weight"].shape
        num_positions = state["visual.positional_embedding"].shape[0]
        projection_dim = state["text_projection"].shape[1]
        text = _tower(state, "transformer", text_width, TEXT_HEAD_DIM)
        vision = _tower(state, "visual.transformer", vision_width, VISION_HEAD_DIM)
        context_length = state["positional_embedding"].shape[0]
    except (KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"not in open_clip's layout: {error}") from None
    grid = round((num_positions - 1) ** 0.5)
    if grid * grid != num_positions - 1:
        raise ValueError(f"visual.positional_embedding: {num_positions} positions; not 1 + n * n")
    return CLIPConfig(
        text_config={
            **text,
            "vocab_size": vocab_size,
            "max_position_embeddings": context_length,
            # CLIP's vocabulary ends with the two marks.
            "bos_token_id": vocab_size - 2,
            "eos_token_id": vocab_size - 1,
            "projection_dim": projection_dim,
        },
        vision_config={
            **vision,
            "patch_size": patch_size,
            "image_size": grid * patch_size,
            "projection_dim": projection_dim,
        },
        projection_dim=projection_dim,
    )


def _tower(state: Mapping[str, Any], prefix: str, width: int, head_dim: int) -> dict[str, Any]:
    if width % head_dim:
        raise ValueError(f"{prefix}: width {width} is no multiple of the head's {head_dim}")
    pattern = re.compile(rf"{re.escape(prefix)}\.resblocks\.(\d+)\.ln_1\.weight")
    blocks = [int(match[1]) for key in state if (match := pattern.fullmatch(key))]
    return {
        "hidden_size": width,
        "intermediate_size": state[f"{prefix}.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": max(blocks, default=-1) + 1,
        "num_attention_heads": width // head_dim,
        "hidden_act": "gelu",
    }
