"""Group train: packs built from a token-by-token description, losses and gradients."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from staged.model.attention import PackedAttention
from staged.model.autoencoder import tokens_from_latents
from staged.model.bagel import Inputs
from staged.model.config import BagelConfig
from staged.model.flow import interpolate, shift_time, velocity_target
from staged.model.keys import from_upstream_key
from staged.model.layout import Layout, Segment, SegmentKind, lay_out
from staged.model.loss import token_losses
from staged.model.patches import patchify
from staged.verify.comparison import Comparisons
from staged.verify.golden import Golden

__all__ = ["train"]


def train(golden: Golden, results: Comparisons) -> None:
    """The layout of the described samples, then one forward and backward pass over it."""
    items = golden.description["train"]["samples"]
    samples = [[_segment(golden, item) for item in sample] for sample in items]
    layout = lay_out(samples, golden.special)
    _compare_layout(golden, layout, results)
    inputs, target = _inputs(golden, [item for sample in items for item in sample], layout, results)
    _compare_pass(golden, layout.to(golden.device), inputs, target, results)


def _segment(golden: Golden, item: Mapping[str, Any]) -> Segment:
    config = golden.loaded.config
    end = item["end_label"]
    end_label = None if end is None else golden.description["config"]["special"][end]
    if item["type"] == "text":
        return Segment(
            kind=SegmentKind.TEXT,
            ids=tuple(item["ids"]),
            supervised=item["loss"],
            end_label=end_label,
        )
    if item["type"] == "vit":
        grid = golden.grid(item["image"], config.vision.patch_size)
        return Segment(kind=SegmentKind.VISION, grid=grid, end_label=end_label)
    return Segment(
        kind=SegmentKind.NOISED if item["loss"] else SegmentKind.CLEAN,
        grid=golden.grid(item["image"], config.pixels_per_latent_token),
        supervised=item["loss"],
        end_label=end_label,
    )


def _compare_layout(golden: Golden, layout: Layout, results: Comparisons) -> None:
    found = {
        "text_ids": layout.token_ids,
        "text_indexes": layout.text_index,
        "vit_indexes": layout.vision_index,
        "vae_indexes": layout.latent_index,
        "position_ids": layout.position_ids,
        "ce_indexes": layout.ce_index,
        "labels": layout.labels,
        "ce_weights": layout.ce_weights,
        "mse_indexes": layout.latent_index[layout.velocity_rows],
    }
    lengths = torch.tensor(golden.description["train"]["sample_lens"])
    results.add("train", "sample_lens", torch.tensor(layout.sample_lens), lengths)
    for name, tensor in found.items():
        results.add("train", name, tensor, golden.tensor(f"train.{name}"))
    for sample in range(len(layout.sample_lens)):
        name = f"mask{sample}"
        results.add("train", name, layout.mask(sample), golden.tensor(f"train.{name}"))


def _inputs(
    golden: Golden, items: list[Mapping[str, Any]], layout: Layout, results: Comparisons
) -> tuple[Inputs, Tensor]:
    """Fill the image tokens: clean latents, noise at the given times, ViT patches."""
    config = golden.loaded.config
    recorded = golden.tensor("train.latents").to(golden.device, golden.dtype)
    size = config.latent_patch_size
    clean = torch.cat(
        [
            tokens_from_latents(latents[:, : rows * size, : columns * size], size)
            for latents, (rows, columns) in zip(recorded, layout.latent_grids, strict=True)
        ]
    )
    images = [golden.image(item["image"]) for item in items if item["type"] == "vae"]
    # Smaller images were encoded with padding around them, which shows at their edges.
    largest = [i for i, image in enumerate(images) if image.shape == _canvas(recorded, config)]
    with torch.no_grad():
        encoded = golden.loaded.autoencoder.encode(torch.stack([images[i] for i in largest]))
    results.add("train", "latents", encoded, golden.tensor("train.latents")[largest])
    noise = golden.tensor("train.noise").to(clean)
    logits = golden.tensor("train.timestep_logits").to(golden.device)
    times = shift_time(torch.sigmoid(logits), config.timestep_shift)
    times = torch.where(layout.noised.to(golden.device), times, torch.zeros_like(times))
    patches = [
        patchify(golden.image(item["image"]), config.vision.patch_size)
        for item in items
        if item["type"] == "vit"
    ]
    inputs = Inputs(
        latents=interpolate(clean, noise, times.to(clean.dtype)),
        timesteps=times,
        patches=torch.cat(patches),
    )
    return inputs, velocity_target(clean, noise)


def _canvas(latents: Tensor, config: BagelConfig) -> tuple[int, ...]:
    """Shape of the images that fill the recorded latents' whole area."""
    height, width = (side * config.autoencoder.downsample for side in latents.shape[-2:])
    return (3, height, width)


def _compare_pass(
    golden: Golden, layout: Layout, inputs: Inputs, target: Tensor, results: Comparisons
) -> None:
    model = golden.loaded.model
    model.zero_grad()
    losses = token_losses(model, model(layout, inputs, PackedAttention(layout)), layout, target)
    results.add("train", "ce", losses.ce, golden.tensor("train.ce"))
    results.add("train", "mse", losses.mse, golden.tensor("train.mse"))
    ce_loss = losses.ce_sum(layout) / layout.ce_weights.sum()
    loss = golden.description["train"]["ce_lambda"] * ce_loss + losses.mse_sum() / len(losses.mse)
    results.add("train", "loss", loss, golden.tensor("train.loss"))
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, match in golden.named(r"train\.grad\.(.+)"):
        gradient = gradients[from_upstream_key(match[1])]
        assert gradient is not None
        results.add("train", f"gradient of {match[1]}", gradient, golden.tensor(name))
    model.zero_grad()
