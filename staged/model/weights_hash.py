"""A name for weights: equal tensors, equal text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch


def weights_hash(modules: Iterable[torch.nn.Module]) -> str:
    """SHA-256 (hex) of every tensor, by name: the same weights, the same text."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
