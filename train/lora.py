"""What a run trains: parts of the model, or a LoRA beside its decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from staged.model.bagel import Bagel
from staged.model.config import TransformerConfig
from staged.model.lora import (
    LowRank,
    add_lora,
    first_lora_a,
    is_lora,
    lora_layers,
    merge_lora,
    modules_of,
)
from staged.model.weights import listed
from train.parts import freeze
from train.settings import LoraSettings, TrainSettings


def trained_parameters(model: Bagel, settings: TrainSettings) -> dict[str, nn.Parameter]:
    """Make a model as it is to be trained; what is not takes no gradients from then on.

    Args:
        model: As it was opened. A LoRA that it begins with is trained on, or, in a run that trains
            weights, merged into them.
        settings: Say what is trained.

    Returns:
        What is trained, by name.

    Raises:
        ValueError: The model begins with a LoRA of other layers, ranks or scales.
    """
    if settings.lora is None:
        merge_lora(model)
        return freeze(model, settings.freeze)
    begin_lora(model, settings.lora, seed=settings.seed)
    trained = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_lora(name))
        if is_lora(name):
            trained[name] = parameter
    return trained


def begin_lora(model: Bagel, settings: LoraSettings, *, seed: int) -> None:
    """Add what is to be trained, unless the model begins with it."""
    wanted = low_ranks(model.config.transformer, settings)
    there = {name: layer.low_rank for name, layer in lora_layers(model).items()}
    if not there:
        add_lora(model, wanted, seed=seed)
        return
    require_same_lora(there, wanted)


def require_same_lora(there: Mapping[str, LowRank], wanted: Mapping[str, LowRank]) -> None:
    """Require the LoRA that a run begins with to be the one that its settings ask for.

    Args:
        there: Additions by their layer's name.
        wanted: As `low_ranks` makes them of settings.

    Raises:
        ValueError: They differ; names layers.
    """
    if there != wanted:
        other = sorted(n for n in there.keys() | wanted.keys() if there.get(n) != wanted.get(n))
        raise ValueError(
            f"init is a LoRA, and lora asks for another one; {len(other)} layers differ in rank, "
            f"scale or being there: {listed(other)}. Give it the settings with which it was "
            "trained, or merge it first (staged merge-lora)"
        )


@torch.no_grad()
def draw_lora(
    model: nn.Module, seed: int, rows_here: Callable[[Tensor], tuple[Tensor, slice]]
) -> None:
    """Begin what was added to a model that had no memory yet: each A at random, each B at zero.

    Args:
        model: With additions; perhaps cut among ranks.
        seed: Of the run.
        rows_here: As in `Division`.
    """
    for name, layer in lora_layers(model).items():
        a, rows = rows_here(layer.lora_a)
        drawn = first_lora_a(seed, f"{name}.lora_a", tuple(layer.lora_a.shape))
        a.detach().copy_(drawn[rows])
        rows_here(layer.lora_b)[0].detach().zero_()


def low_ranks(config: TransformerConfig, settings: LoraSettings) -> dict[str, LowRank]:
    """The addition to each layer that gets one, by its name."""
    found: dict[str, LowRank] = {}
    for expert, chosen in (("und", settings.und), ("gen", settings.gen)):
        if chosen is None:
            continue
        alpha = chosen.rank if chosen.alpha is None else chosen.alpha
        low_rank = LowRank(rank=chosen.rank, scale=alpha / chosen.rank)
        found |= dict.fromkeys(modules_of(config, expert, chosen.targets), low_rank)
    return found
