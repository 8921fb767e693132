"""The checkpoint that a run begins with, in the precision that training takes."""

from __future__ import annotations

import copy

import torch

from staged.model.autoencoder import Autoencoder
from staged.model.checkpoint import LoadedBagel
from staged.model.codec import ImageCodec
from staged.model.config import BagelConfig
from staged.model.division import Division
from staged.model.open import open_checkpoint, open_codec
from staged.model.tokenizer import BagelTokenizer
from train.settings import TrainSettings


def open_to_train(
    settings: TrainSettings,
    device: torch.device,
    dtype: torch.dtype,
    division: Division | None = None,
) -> tuple[LoadedBagel, BagelTokenizer]:
    """Open what `init` names.

    Args:
        settings: Of the run.
        device: Where the weights go.
        dtype: In which the run computes.
        division: Of the model among ranks.

    Raises:
        ValueError: There is no such checkpoint, or it has no tokenizer.
    """
    loaded = open_checkpoint(
        settings.init,
        seed=settings.seed,
        device=device,
        # Beside a LoRA weights only compute, and need no more bits than that takes.
        dtype=torch.float32 if settings.lora is None else dtype,
        lora_dtype=torch.float32,
        division=division,
    )
    if loaded.tokenizer is None:
        raise ValueError(f"init {settings.init} has no tokenizer; add its tokenizer files")
    return loaded, loaded.tokenizer


def open_to_read(settings: TrainSettings) -> tuple[ImageCodec, BagelTokenizer]:
    """Open what a run reads its data with, without the weights that it trains.

    Args:
        settings: Of the run, with nothing `auto`; latents are as the run would have them, and kept
            with its own.

    Raises:
        ValueError: As `open_to_train`.
    """
    codec, tokenizer = open_codec(settings.init, seed=settings.seed)
    device, dtype = torch.device(settings.device), getattr(torch, settings.dtype)
    return codec_to_train(codec.autoencoder, codec.config, dtype, device), tokenizer


def codec_to_train(
    autoencoder: Autoencoder, config: BagelConfig, dtype: torch.dtype, device: torch.device
) -> ImageCodec:
    """The codec of a run, with a copy of an autoencoder that may be narrower."""
    return ImageCodec(copy.deepcopy(autoencoder).to(device, dtype), config)
