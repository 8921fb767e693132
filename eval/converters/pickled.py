"""Published checkpoints that exist in PyTorch's own format alone, for the converters.

Everything else reads safetensors. PyTorch's format is a pickle, which can run code; here nothing
but tensors and plain values is unpickled, once, and what comes of it is written as safetensors.
"""

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
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError) as error:
        # In one line, and without torch's advice to unpickle whatever is in there.
        why = str(error).strip().split("\n")[0].split(". ")[0]
        raise ValueError(
            f"{path}: not a checkpoint of plain tensors; damaged, of another kind, or has code "
            f"in it ({why or type(error).__name__})"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a state dictionary, got {type(content).__name__}")
    return content
