"""A vision tower of ours as transformers' SigLIP, whose weights it once had."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import torch
from einops import rearrange

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import SiglipVisionConfig, SiglipVisionModel

    from staged.model.config import VisionConfig
    from staged.model.vision import VisionTower

_LAYER: Final = re.compile(r"layers\.(\d+)\.(\w+)\.(weight|bias)")
_PARTS: Final = {
    "attn_norm": "layer_norm1",
    "mlp_norm": "layer_norm2",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.out_proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
_REST: Final = {
    "patch_embedding.weight": "embeddings.patch_embedding.weight",
    "patch_embedding.bias": "embeddings.patch_embedding.bias",
    "position_embedding.weight": "embeddings.position_embedding.weight",
    "post_layernorm.weight": "post_layernorm.weight",
    "post_layernorm.bias": "post_layernorm.bias",
}


def siglip_config(config: VisionConfig) -> SiglipVisionConfig:
    """The same dimensions, for pictures that fill the table of positions."""
    from transformers import SiglipVisionConfig

    made: Any = SiglipVisionConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        image_size=config.positions_per_side * config.patch_size,
        patch_size=config.patch_size,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=config.layer_norm_eps,
        vision_use_head=False,
    )
    return made  # type: ignore[no-any-return]


def siglip_weights(tower: VisionTower) -> dict[str, Tensor]:
    """The weights under their names there; patches become a convolution, which is the same sum."""
    found = {}
    for name, weight in tower.state_dict().items():
        layer = _LAYER.fullmatch(name)
        if layer is None:
            stored = _REST[name]
        else:
            stored = f"encoder.layers.{layer[1]}.{_PARTS[layer[2]]}.{layer[3]}"
        if name == "patch_embedding.weight":
            side = tower.config.patch_size
            weight = rearrange(weight, "d (p q c) -> d c p q", p=side, q=side)
        found[stored] = weight
    return found


def calm(tower: SiglipVisionModel, pictures: Tensor) -> None:
    """Scale what the layers pass on, so that a LLaVA reads numbers of ordinary size.

    It reads the last layer before the final norm, where a trained tower holds numbers of hundreds.
    Every layer norms what it reads, so features behind the final norm stay as they are.

    Args:
        tower: Scaled in place.
        pictures: (b, c, h, w) in [-1, 1], to measure by.
    """
    with torch.no_grad():
        hidden = tower(pictures, output_hidden_states=True).hidden_states[-1]
        scale = 1 / float(hidden.std(dim=-1).median())
        for name, weight in tower.named_parameters():
            if re.search(r"embeddings|out_proj|fc2", name):
                weight.mul_(scale)
    tower.config.layer_norm_eps *= scale**2
    for module in tower.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = tower.config.layer_norm_eps
