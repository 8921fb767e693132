"""Checkpoints by what a user calls them: a folder, a repository on the Hub, or `miniature:NAME`."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from staged.model import checkpoint
from staged.model.checkpoint import Facts, LoadedBagel

_NAMED = {"miniature": "staged.shapes.miniature"}
"""What stands before a colon: the module whose `open_named` and `look_at_named` know the rest.

By name, for a model knows no world that it was trained in; that world's packages know models.
"""


def open_checkpoint(
    source: str,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LoadedBagel:
    """Load a checkpoint.

    Args:
        source: `miniature:base`, `miniature:staged`, `miniature:fresh`, a folder, or a Hub id.
        seed: Of `miniature:fresh`.
        device: Where the weights go.
        dtype: Of the model, as it is read; the autoencoder is in float32.

    Raises:
        ValueError: There is no such checkpoint.
    """
    module, name = _named(source)
    if module is None:
        return checkpoint.load(source, device=device, dtype=dtype)
    loaded: LoadedBagel = module.open_named(name, seed=seed, device=device, dtype=dtype)
    return loaded


def look_at_checkpoint(source: str) -> Facts:
    """Read what a checkpoint says of itself, without its weights; see `open_checkpoint`.

    Raises:
        ValueError: There is no such checkpoint.
    """
    module, name = _named(source)
    if module is None:
        return checkpoint.look(source)
    facts: Facts = module.look_at_named(name)
    return facts


def _named(source: str) -> tuple[Any, str]:
    """The module that knows a checkpoint, and its name there; None for a folder or a Hub id."""
    scheme, colon, name = source.partition(":")
    if not colon or scheme not in _NAMED:
        return None, source
    return importlib.import_module(_NAMED[scheme]), name
