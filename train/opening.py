"""The checkpoint that a run begins with, in the precision that training takes."""

from __future__ import annotations

import torch

from staged.model.checkpoint import LoadedBagel
from staged.model.division import Division
from staged.model.open import open_checkpoint
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
