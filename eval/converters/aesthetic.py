"""The aesthetic predictor's published checkpoint as safetensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from eval.converters.pickled import read_checkpoint
from eval.rewards.aesthetic import WEIGHTS_FILE, head_of

_KEY = re.compile(r"layers\.(\d+)\.(weight|bias)")


def convert_head(checkpoint: Path, folder: Path) -> None:
    """Write the published checkpoint as safetensors.

    Raises:
        ValueError: not such a checkpoint.
        OSError: a file cannot be read or written.
    """
    head = head_of(_renumbered(read_checkpoint(checkpoint), str(checkpoint)), str(checkpoint))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(head.state_dict(), folder / WEIGHTS_FILE)


def _renumbered(state: Mapping[str, Any], place: str) -> dict[str, Tensor]:
    """Count linear layers only: the original's numbers count dropout too."""
    found: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        match = _KEY.fullmatch(key)
        if match is None or not isinstance(value, Tensor):
            raise ValueError(f"{place}: {key}: no weight of the aesthetic predictor")
        found.setdefault(int(match[1]), {})[match[2]] = value
    return {
        f"layers.{index}.{name}": value
        for index, number in enumerate(sorted(found))
        for name, value in found[number].items()
    }
