"""What may lie in one folder: only pictures that the same things decided."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def refuse_others(folder: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Compare what decided a folder's pictures with what would decide further ones.

    Args:
        folder: Of the pictures.
        theirs: What decided those that are there, by name.
        ours: What would decide further ones.

    Raises:
        ValueError: they differ; the message says in what.
    """
    differ = [
        f"{name} ({theirs.get(name)}, not {ours.get(name)})"
        for name in {**ours, **theirs}
        if theirs.get(name) != ours.get(name)
    ]
    if differ:
        raise ValueError(
            f"{folder} holds pictures with another {', '.join(differ)}; choose another --out"
        )
