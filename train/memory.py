"""Whether what a run keeps fits its device: told at once, not after hours of encoding."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from staged.device_memory import gib, memory_of
from train.optimizer import Optimizers
from train.settings import TrainSettings
from train.ways_out import keeping_less


def require_memory(
    kept: Mapping[str, int],
    device: torch.device,
    settings: TrainSettings,
    *,
    needs_average: bool = False,
) -> None:
    """Require room for what is there in every step; activations, which packs decide, come on top.

    Args:
        kept: Bytes, as `kept_bytes` counts them.
        device: Of the run.
        settings: Of the run, which say what could be left.
        needs_average: It cannot go without an average of its weights.

    Raises:
        ValueError: The device has less memory than that in all.
    """
    there = memory_of(device)
    if sum(kept.values()) > there:
        parts = ", ".join(f"{name} {gib(size)}" for name, size in kept.items() if size)
        less = "".join(f"  {way}\n" for way in keeping_less(settings, needs_average=needs_average))
        way_out = f"less is kept with any of\n{less}and" if less else "less is kept by each GPU"
        raise ValueError(
            f"a step keeps {gib(sum(kept.values()))} GiB ({parts}), activations not counted, and "
            f"{device} has {gib(there)}; {way_out} where more GPUs share the model (torchrun)"
        )


def kept_bytes(
    model: nn.Module,
    trained: Mapping[str, nn.Parameter],
    optimizer: Optimizers,
    *,
    averaged: bool,
    dtype: torch.dtype,
    shards: int = 1,
) -> dict[str, int]:
    """Count what stays on a device from step to step, and the gradients and working copy of each.

    Args:
        model: As it is kept; what is trained is float32.
        trained: Its parameters that are trained, by name.
        optimizer: Of them.
        averaged: Whether there is an average of them.
        dtype: Of forward and backward.
        shards: Ranks among which the model is cut; each layer is whole only while it computes.
    """
    others = sum(p.numel() for p in model.parameters() if p.dtype != dtype)
    part = sum(p.numel() for p in trained.values()) // shards
    return {
        "weights": sum(p.nbytes for p in model.parameters()) // shards,
        "gradients": 4 * part,
        "moments": moments_bytes(optimizer, trained.values()) // shards,
        "average": 4 * part * averaged,
        # What one process computes as it is kept is the weights themselves.
        "working copy": dtype.itemsize * others * (shards == 1),
    }


def bytes_to_write(
    settings: TrainSettings,
    model: nn.Module,
    trained: Mapping[str, nn.Parameter],
    optimizer: Optimizers,
) -> int:
    """Count the states that a run keeps, the one that it is writing, and what it ends up with.

    Args:
        settings: Of the run.
        model: Of it.
        trained: Its parameters that are trained, by name.
        optimizer: Of them.
    """
    copies = 2 if settings.optimizer.ema_decay else 1  # weights, average
    numbers = sum(parameter.numel() for parameter in trained.values())
    state = 4 * copies * numbers + moments_bytes(optimizer, trained.values())
    whole = model.parameters() if settings.lora is None else trained.values()
    exported = 4 * sum(p.numel() for p in whole)
    due = math.ceil(settings.num_steps / settings.checkpoint_every_steps)
    kept = settings.keep_checkpoints
    if settings.validation is not None and settings.validation.keep_best:
        due += math.ceil(settings.num_steps / settings.validation.every_steps)
        kept, exported = kept + 1, 2 * exported
    return state * min(kept + 1, due) + exported


def moments_bytes(optimizer: Optimizers, parameters: Iterable[nn.Parameter]) -> int:
    """What an optimizer keeps for parameters, on however many ranks."""
    return sum(kept.nbytes for p in parameters for kept in optimizer.kept_for(p).values())
