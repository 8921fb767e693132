"""The parts of a model that a run can train or leave as they are."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:  # settings name parts, and are read without torch
    import torch
    from torch import nn

Part = Literal["und", "gen", "vit", "connector", "latents", "words"]
"""`und`, `gen`: the experts; `vit`: the vision tower; `connector`: from there into the decoder;
`latents`: latents and times in, velocities out; `words`: embeddings and the head over them."""
PARTS: tuple[Part, ...] = get_args(Part)

_PREFIXES: dict[str, Part] = {
    "vision.": "vit",
    "connector.": "connector",
    "latent_in.": "latents",
    "latent_out.": "latents",
    "time_embed.": "latents",
    "embed_tokens.": "words",
    "lm_head.": "words",
}


def part_of(name: str) -> Part:
    """The part that a parameter of `Bagel` belongs to.

    Raises:
        KeyError: None has such a name.
    """
    for prefix, part in _PREFIXES.items():
        if name.startswith(prefix):
            return part
    if ".und." in name:
        return "und"
    if ".gen." in name:
        return "gen"
    raise KeyError(name)


def freeze(model: nn.Module, parts: Collection[str]) -> dict[str, nn.Parameter]:
    """Leave parts of a model as they are.

    Args:
        model: A `Bagel`; what is frozen takes no gradients from then on.
        parts: Of `PARTS`.

    Returns:
        What is left to train, by name.
    """
    trained = {}
    for name, parameter in model.named_parameters():
        if part_of(name) in parts:
            parameter.requires_grad_(False)
        else:
            trained[name] = parameter
    return trained


def keep_frozen_narrow(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep what is frozen in the type that it computes in: it has no steps to lose bits of.

    Args:
        model: Of which some is frozen; what is not keeps its type.
        dtype: Of forward and backward.
    """
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
