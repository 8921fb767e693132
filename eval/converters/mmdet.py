"""mmdet's Mask2Former checkpoints for transformers: names, splits and the order of merged pixels.

The reference's weights are `mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_*.pth` of mmdet 2.x.
Nothing else knows mmdet's names. Every key of the checkpoint must be used and every weight of the
model be found, or nothing is converted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from eval.converters.pickled import read_checkpoint
from eval.downloads import sha256_of
from eval.geneval.mask2former import COMPUTED, SOURCE_FILE
from eval.geneval.names import CLASSES
from staged.model.weights import check_weights

_SWIN = "model.pixel_level_module.encoder.swin"
_PIXELS = "model.pixel_level_module.decoder"
_QUERIES = "model.transformer_module"

_COMPUTED = re.compile(COMPUTED)

_RENAMED: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    (
        "backbone.patch_embed",
        f"{_SWIN}.embeddings",
        {"projection": "patch_embeddings.projection", "norm": "norm"},
    ),
    (
        "backbone.stages.#.blocks.#",
        f"{_SWIN}.encoder.layers.#.blocks.#",
        {
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
            "attn.w_msa.proj": "attention.o_proj",
            "attn.w_msa": "attention.relative_position_bias",
            "ffn.layers.0.0": "mlp.fc1",
            "ffn.layers.1": "mlp.fc2",
        },
    ),
    (
        "panoptic_head.pixel_decoder.input_convs.#",
        f"{_PIXELS}.input_projections.#",
        {"conv": "0", "gn": "1"},
    ),
    (
        "panoptic_head.pixel_decoder.encoder.layers.#",
        f"{_PIXELS}.encoder.layers.#",
        {
            **{
                f"attentions.0.{name}": f"self_attn.{name}"
                for name in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
            },
            "ffns.0.layers.0.0": "fc1",
            "ffns.0.layers.1": "fc2",
            "norms.0": "self_attn_layer_norm",
            "norms.1": "final_layer_norm",
        },
    ),
    (
        "panoptic_head.pixel_decoder",
        _PIXELS,
        {
            "lateral_convs.0.conv": "adapter_1.0",
            "lateral_convs.0.gn": "adapter_1.1",
            "output_convs.0.conv": "layer_1.0",
            "output_convs.0.gn": "layer_1.1",
            "mask_feature": "mask_projection",
        },
    ),
    (
        "panoptic_head.transformer_decoder.layers.#",
        f"{_QUERIES}.decoder.layers.#",
        {
            # A layer looks at the image first: attention 0 is across, 1 among the queries.
            "attentions.0.attn.out_proj": "cross_attn.out_proj",
            "attentions.0.attn": "cross_attn",
            "attentions.1.attn.out_proj": "self_attn.out_proj",
            "norms.0": "cross_attn_layer_norm",
            "norms.1": "self_attn_layer_norm",
            "norms.2": "final_layer_norm",
            "ffns.0.layers.0.0": "fc1",
            "ffns.0.layers.1": "fc2",
        },
    ),
    (
        "panoptic_head",
        _QUERIES,
        {
            "transformer_decoder.post_norm": "decoder.layernorm",
            "query_embed": "queries_embedder",
            "query_feat": "queries_features",
            "level_embed": "level_embed",
        },
    ),
    ("panoptic_head", "class_predictor", {"cls_embed": ""}),
)
"""mmdet's prefix, transformers' prefix, and the names of modules behind them; # is a number.

What follows a module's name (`weight`, `bias` and the like) is kept.
"""


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename, split and reorder a state dict.

    Args:
        state: mmdet's, of a whole Mask2Former with a Swin backbone.

    Returns:
        transformers' state dict, without what it computes itself.

    Raises:
        ValueError: a key is not one of Mask2Former's.
    """
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        if not _COMPUTED.search(key):
            converted.update(_converted(key, value))
    return converted


def config_of(state: Mapping[str, Tensor]) -> Mask2FormerConfig:
    """Read the sizes of the network from mmdet's weights.

    Attention has one head for every 32 channels, as in every published checkpoint.

    Raises:
        ValueError: a weight that tells a size is missing.
    """
    try:
        embed_dim = state["backbone.patch_embed.projection.weight"].shape[0]
        depths = [
            _count(state, rf"backbone\.stages\.{stage}\.blocks\.(\d+)\.norm1\.weight")
            for stage in range(4)
        ]
        heads = [
            state[f"{_block(stage)}.relative_position_bias_table"].shape[1] for stage in range(4)
        ]
        table_rows = state[f"{_block(0)}.relative_position_bias_table"].shape[0]
        queries, hidden_dim = state["panoptic_head.query_feat.weight"].shape
        feature_size = state["panoptic_head.pixel_decoder.level_encoding.weight"].shape[1]
        mask_size = state["panoptic_head.pixel_decoder.mask_feature.weight"].shape[0]
        pixel_ffn = state[
            "panoptic_head.pixel_decoder.encoder.layers.0.ffns.0.layers.0.0.weight"
        ].shape[0]
        ffn = state["panoptic_head.transformer_decoder.layers.0.ffns.0.layers.0.0.weight"].shape[0]
        labels = state["panoptic_head.cls_embed.weight"].shape[0] - 1
    except KeyError as error:
        raise ValueError(
            f"the checkpoint has no {error}; expected mmdet's Mask2Former with a Swin backbone"
        ) from None
    swin: dict[str, Any] = {
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": heads,
        "window_size": (int(table_rows**0.5) + 1) // 2,
        "drop_path_rate": 0.0,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
    names = CLASSES if labels == len(CLASSES) else tuple(map(str, range(labels)))
    return Mask2FormerConfig(
        backbone_config=SwinConfig(**swin),
        feature_size=feature_size,
        mask_feature_size=mask_size,
        hidden_dim=hidden_dim,
        encoder_feedforward_dim=pixel_ffn,
        dim_feedforward=ffn,
        encoder_layers=_count(
            state, r"panoptic_head\.pixel_decoder\.encoder\.layers\.(\d+)\.norms\.0\.weight"
        ),
        # transformers counts the prediction before the first layer as one.
        decoder_layers=1
        + _count(state, r"panoptic_head\.transformer_decoder\.layers\.(\d+)\.norms\.0\.weight"),
        num_attention_heads=max(hidden_dim // 32, 1),
        num_queries=queries,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )


def convert_model(state: Mapping[str, Tensor]) -> Mask2FormerForUniversalSegmentation:
    """Build transformers' model from mmdet's weights.

    Raises:
        ValueError: a key is unknown or missing, a shape does not fit, or weights are not finite.
    """
    model: Any = Mask2FormerForUniversalSegmentation(config_of(state))
    converted = convert(state)
    expected = {
        key: tuple(value.shape)
        for key, value in model.state_dict().items()
        if not _COMPUTED.search(key)
    }
    check_weights("the checkpoint", converted, expected)
    model.load_state_dict(converted, strict=False)
    return cast(Mask2FormerForUniversalSegmentation, model.eval())


def convert_file(checkpoint: Path, folder: Path) -> None:
    """Convert a checkpoint file to a folder that `Mask2FormerDetector.load` reads.

    Raises:
        ValueError: not such a checkpoint.
        OSError: a file cannot be read or written.
    """
    data = read_checkpoint(checkpoint)
    state = data.get("state_dict", data)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{checkpoint}: holds no state_dict")
    model = convert_model(state)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    source = {"weights": "mmdet", "checkpoint_sha256": sha256_of(checkpoint.read_bytes())}
    (folder / SOURCE_FILE).write_text(json.dumps(source) + "\n", encoding="utf-8")


def _converted(key: str, value: Tensor) -> dict[str, Tensor]:
    for special, convert_one in _SPECIAL:
        if match := re.fullmatch(special, key):
            return convert_one(match, value)
    for pattern, target in _PATTERNS:
        if match := pattern.fullmatch(key):
            return {target.format(*match.groups()): value}
    raise ValueError(f"{key}: no weight of mmdet's Mask2Former with a Swin backbone")


def _patterns() -> list[tuple[re.Pattern[str], str]]:
    patterns = []
    for source, target, modules in _RENAMED:
        for name, renamed in modules.items():
            pattern = re.escape(f"{source}.{name}").replace(r"\#", r"(\d+)") + r"\.(\w+)"
            path = f"{target}.{renamed}" if renamed else target
            patterns.append((re.compile(pattern), path.replace("#", "{}") + ".{}"))
    return patterns


_PATTERNS = _patterns()


def _level_encoding(match: re.Match[str], value: Tensor) -> dict[str, Tensor]:
    # A parameter there, an embedding here.
    return {f"{_PIXELS}.level_embed": value}


def _qkv(prefix: str, leaf: str, value: Tensor) -> dict[str, Tensor]:
    parts = zip("qkv", value.chunk(3), strict=True)
    return {f"{prefix}.{name}_proj.{leaf}": part.clone() for name, part in parts}


def _swin_qkv(match: re.Match[str], value: Tensor) -> dict[str, Tensor]:
    prefix = f"{_SWIN}.encoder.layers.{match[1]}.blocks.{match[2]}.attention"
    return _qkv(prefix, match[3], value)


def _query_qkv(match: re.Match[str], value: Tensor) -> dict[str, Tensor]:
    return _qkv(f"{_QUERIES}.decoder.layers.{match[1]}.self_attn", match[2], value)


def _merging(match: re.Match[str], value: Tensor) -> dict[str, Tensor]:
    # mmdet merges 2 x 2 pixels with Unfold: channels, then pixels row by row. Swin's own order,
    # which transformers keeps, is pixels column by column, then channels.
    *rows, merged = value.shape
    by_pixel = value.reshape(*rows, merged // 4, 4).transpose(-1, -2)
    reordered = by_pixel[..., [0, 2, 1, 3], :].reshape(*rows, merged).contiguous()
    return {f"{_SWIN}.encoder.layers.{match[1]}.downsample.{match[2]}": reordered}


def _stage_norm(match: re.Match[str], value: Tensor) -> dict[str, Tensor]:
    stage = int(match[1]) + 1
    prefix = "model.pixel_level_module.encoder.hidden_states_norms"
    return {f"{prefix}.stage{stage}.{match[2]}": value}


def _mask_embed(match: re.Match[str], value: Tensor) -> dict[str, Tensor]:
    # A Sequential of linear, ReLU, linear, ReLU, linear.
    layer = int(match[1]) // 2
    prefix = f"{_QUERIES}.decoder.mask_predictor.mask_embedder"
    return {f"{prefix}.{layer}.0.{match[2]}": value}


_SPECIAL: tuple[tuple[str, Callable[[re.Match[str], Tensor], dict[str, Tensor]]], ...] = (
    (r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.qkv\.(weight|bias)", _swin_qkv),
    (r"backbone\.stages\.(\d+)\.downsample\.((?:reduction|norm)\.(?:weight|bias))", _merging),
    (r"backbone\.norm(\d)\.(weight|bias)", _stage_norm),
    (r"panoptic_head\.pixel_decoder\.level_encoding\.weight", _level_encoding),
    (
        r"panoptic_head\.transformer_decoder\.layers\.(\d+)\.attentions\.1\.attn\.in_proj_(\w+)",
        _query_qkv,
    ),
    (r"panoptic_head\.mask_embed\.(\d)\.(weight|bias)", _mask_embed),
)


def _block(stage: int) -> str:
    return f"backbone.stages.{stage}.blocks.0.attn.w_msa"


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    numbers = [int(match[1]) for key in state if (match := re.fullmatch(pattern, key))]
    return max(numbers, default=-1) + 1
