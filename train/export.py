"""The finished model of a run, in the published layout, from however many ranks hold it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from staged.model import checkpoint
from staged.model.adapter import write_adapter
from staged.model.checkpoint import LoadedBagel
from train.ema import WeightAverage
from train.ranks import Ranks
from train.sharding import whole


def weights_to_export(
    parameters: Mapping[str, nn.Parameter], average: WeightAverage | None, ranks: Ranks
) -> dict[str, Tensor]:
    """Weights, averaged ones first (what is frozen has no average); all ranks must call it.

    Args:
        parameters: By name.
        average: Of all or some of them.
        ranks: That share the run.

    Returns:
        Whole tensors on the first rank; nothing on others.
    """
    weights: dict[str, Tensor] = dict(parameters)
    if average is not None:
        weights |= average.tensors
    if ranks.world_size == 1:
        return weights
    gathered = {}
    for name, tensor in weights.items():  # one at a time: a device need not hold them all
        full = whole(tensor)
        if ranks.is_first:
            gathered[name] = full.cpu()
    return gathered


def export(folder: Path, loaded: LoadedBagel, weights: Mapping[str, Tensor]) -> None:
    """Write a checkpoint like the one that a run began with, with other weights.

    Args:
        folder: Replaced when the new one is whole.
        loaded: What the run began with.
        weights: Of all parameters.
    """
    checkpoint.save(
        folder,
        model=loaded.model,
        autoencoder=loaded.autoencoder,
        tokenizer=loaded.tokenizer,
        flows=loaded.flows.for_other_weights(),
        weights=weights,
    )


def write_result(
    folder: Path,
    loaded: LoadedBagel,
    parameters: Mapping[str, nn.Parameter],
    average: WeightAverage | None,
    ranks: Ranks,
    lora_base: str | None,
) -> Path:
    """Write what a run has made, averaged weights first; all ranks must call it.

    Args:
        folder: Of the result; replaced when the new one is whole.
        loaded: What the run began with, its model as it stands.
        parameters: That are trained.
        average: Of them.
        ranks: That share the run.
        lora_base: The checkpoint to which a trained LoRA belongs, written in PEFT's format; None
            where weights were trained.

    Returns:
        The result's folder.
    """
    held = parameters if lora_base is not None else dict(loaded.model.named_parameters())
    weights = weights_to_export(held, average, ranks)

    def write() -> None:  # what a rank returns travels as JSON, which knows no paths
        if lora_base is not None:
            write_adapter(folder, loaded.model, base=lora_base, weights=weights)
        else:
            export(folder, loaded, weights)

    ranks.first(write)
    return folder
