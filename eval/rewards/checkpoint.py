"""Published checkpoints in PyTorch's own format, read without running what they may carry."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of PyTorch that holds tensors and plain values only.

    Raises:
        ValueError: it is none, or it holds code.
        OSError: it cannot be read.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path}: not a checkpoint of plain tensors: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a state dictionary, got {type(content).__name__}")
    return content
