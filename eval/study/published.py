"""The paper's study: preferences in per cent over 104 ideas (arXiv 2310.08541, table 2)."""

from __future__ import annotations

from typing import Final

PUBLISHED: Final = {
    "SDXL": (13.5, 29.8, 56.7),
    "DeepFloyd IF": (14.4, 34.6, 51.0),
    "SD 2.1": (13.5, 40.4, 46.2),
    "SD 1.5": (8.6, 43.3, 48.1),
    "SDXL image to image": (8.6, 34.6, 56.7),
}
"""Image model to own prompt, first round and refined, in the order of `items.LINES`."""
