"""The miniature BAGEL: the real model's code and files at a size two CPU cores can train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from staged.model import checkpoint
from staged.model.bagel import Bagel
from staged.model.checkpoint import LoadedBagel
from staged.model.checkpoint_folders import CheckpointFolders, Facts
from staged.model.codec import ImageSizes
from staged.model.config import (
    AutoencoderConfig,
    BagelConfig,
    TransformerConfig,
    VisionConfig,
)
from staged.model.division import Division
from staged.model.flows import Flows, FlowSettings, Guidance
from staged.model.quantizations import Quantization
from staged.model.quantized import quantize_experts
from staged.model.tokenizer import BagelTokenizer, train_tokenizer
from staged.shapes.language.asked import in_its_words, step_in_its_words
from staged.shapes.language.vocabulary import vocabulary
from staged.shapes.world.scene import CANVAS_PX
from staged.strict_json import loads
from staged.trajectory import Plan, Refinement, TextStep

CHECKPOINTS = Path(__file__).parent / "checkpoints"
"""What ships with the package: the autoencoder, `base/` and `staged/`."""

VOCAB_SIZE = 1024

_FLOW = FlowSettings(
    num_flow_steps=20,
    timestep_shift=1.0,
    guidance=Guidance(text_scale=4.0, image_scale=1.0, interval=(0.0, 1.0), renorm_min=1.0),
)
_ONTO = replace(_FLOW, guidance=replace(_FLOW.guidance, text_scale=2.5, image_scale=2.0))
FLOWS = Flows(first=_FLOW, edit=_ONTO, refinement=_ONTO)
"""What a fresh miniature begins with; a trained one keeps its own.

A canvas of 36 latent tokens needs neither the many steps nor the shift of a large one, and
renormalisation cost a half-trained base a quarter of the right single objects. Onto a picture
text guidance of 4 spoils what nobody touched: 2.5, with 2 over images, kept half as much again.
"""
PREFIX = "miniature:"
"""How the name of a shipped or a fresh one begins."""


def config(autoencoder: AutoencoderConfig) -> BagelConfig:
    """Dimensions: a 48-pixel canvas is 6 x 6 latent tokens of 16 numbers and 6 x 6 ViT patches.

    Few tokens of few numbers are what such a small model learns fast; 192 numbers a token (raw
    pixels) taught it colours but no shapes.
    """
    tokens_per_side = CANVAS_PX // (autoencoder.downsample * 2)
    return BagelConfig(
        transformer=TransformerConfig(
            hidden_size=192,
            intermediate_size=512,
            num_layers=6,
            num_heads=6,
            num_kv_heads=3,
            head_dim=32,
            vocab_size=VOCAB_SIZE,
            rope_theta=1e4,
        ),
        vision=VisionConfig(
            hidden_size=96,
            intermediate_size=256,
            num_layers=3,
            num_heads=3,
            patch_size=8,
            positions_per_side=CANVAS_PX // 8,
        ),
        autoencoder=autoencoder,
        latent_patch_size=2,
        max_latent_size=tokens_per_side,
        vit_max_patches_per_side=CANVAS_PX // 8,
        timestep_shift=1.0,
    )


def tokenizer() -> BagelTokenizer:
    """The grammar's tokenizer: one token for nearly every word, bytes for anything else."""
    return train_tokenizer(vocabulary(), VOCAB_SIZE)


def _autoencoder() -> AutoencoderConfig:
    record = (CHECKPOINTS / "ae.json").read_text(encoding="utf-8")
    facts = loads(record, place="ae.json", max_bytes=1 << 20)["autoencoder"]
    facts["multipliers"] = tuple(facts["multipliers"])
    return AutoencoderConfig(**facts)


def fresh(seed: int, *, device: str | torch.device = "cpu") -> LoadedBagel:
    """A miniature with random weights and the shipped autoencoder."""
    autoencoder = checkpoint.load_autoencoder(CHECKPOINTS, _autoencoder(), device=device)
    dimensions = config(autoencoder.config)
    model = Bagel(dimensions)
    model.init_weights(torch.Generator().manual_seed(seed))
    return LoadedBagel(
        model=model.to(device).eval(),
        autoencoder=autoencoder,
        tokenizer=tokenizer(),
        config=dimensions,
        folder=CHECKPOINTS,
        flows=FLOWS,
    )


def is_miniature(sizes: ImageSizes) -> bool:
    """Whether a model draws the miniature world, shipped or trained anew."""
    return sizes.latent_max <= CANVAS_PX


def understood(
    sizes: ImageSizes,
    prompts: Sequence[str],
    *,
    answering: bool = False,
    onto_images: bool = False,
) -> list[str]:
    """Say prompts as a model is to read them; whoever takes prompts from users asks here first.

    Args:
        sizes: Of the model. A miniature gets them in its own words, every other model as they are.
        prompts: As a user wrote them.
        answering: They are questions about images.
        onto_images: They come with images, which they may ask to edit.

    Raises:
        ValueError: A miniature cannot know one of them; the message says what it knows.
    """
    if not is_miniature(sizes):
        return list(prompts)
    return in_its_words(prompts, answering=answering, onto_images=onto_images)


def understood_step(sizes: ImageSizes, step: TextStep) -> TextStep:
    """Say a plan or a correction by hand as a model is to read it; see `understood`.

    Args:
        sizes: Of the model. A miniature gets them in its own words, every other model as they are.
        step: As a user wrote it; of an inspection the words are free.

    Raises:
        ValueError: A miniature cannot know it; the message says what it knows.
    """
    if is_miniature(sizes) and isinstance(step, Plan | Refinement):
        return step_in_its_words(step)
    return step


def open_named(
    name: str,
    *,
    seed: int,
    device: str | torch.device,
    dtype: torch.dtype,
    division: Division | None = None,
    quantization: Quantization = "none",
) -> LoadedBagel:
    """Load `base` or `staged`, or make `fresh`; see `staged.model.open.open_checkpoint`.

    Raises:
        ValueError: There is no such miniature.
    """
    _check_name(name)
    if name == "fresh":
        loaded = fresh(seed, device=device)
        model = loaded.model.to(dtype)
        quantize_experts(model, quantization)
        if division is not None:
            division.apply(model)  # drawn whole, and small
        return replace(loaded, model=model)
    return checkpoint.load(
        CHECKPOINTS / name,
        device=device,
        dtype=dtype,
        autoencoder_folder=CHECKPOINTS,
        division=division,
        quantization=quantization,
    )


def look_at_named(name: str) -> Facts:
    """Read what one says of itself; see `staged.model.open.look_at_checkpoint`.

    Raises:
        ValueError: There is no such miniature.
    """
    _check_name(name)
    if name == "fresh":
        return Facts(config=config(_autoencoder()), flows=FLOWS)
    return checkpoint.look(CHECKPOINTS / name, autoencoder_folder=CHECKPOINTS)


def folders_named(name: str) -> CheckpointFolders:
    """Where the files of one lie; see `staged.model.open.find_checkpoint`.

    Raises:
        ValueError: There is no such miniature, or it has no files.
    """
    _check_name(name)
    if name == "fresh":
        raise ValueError("miniature:fresh is made anew each time; it has no files")
    return checkpoint.folders_of(CHECKPOINTS / name, autoencoder_folder=CHECKPOINTS)


def _check_name(name: str) -> None:
    if name not in ("base", "staged", "fresh"):
        raise ValueError(f"no miniature {name!r}; there are base, staged and fresh")
