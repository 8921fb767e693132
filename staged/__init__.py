"""Text-to-image generation in stages: plan, sketch, inspect, refine.

    model = staged.load("miniature:staged")
    trajectory = model.draw("a photo of a red circle above a blue star")

Importing this package imports nothing else, so that whatever needs little starts fast: each name
below is looked up in its module when it is first used. `staged.api` has the interface, and
`__init__.pyi` says to type checkers what stands where.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "DrawingFailed",
    "ImageRef",
    "Inspection",
    "LoadedModel",
    "Plan",
    "Refinement",
    "Sketch",
    "Stop",
    "Thought",
    "Trajectory",
    "load",
    "load_trajectory",
    "save_trajectory",
]

_HOMES = {
    **dict.fromkeys(("DrawingFailed", "LoadedModel", "load"), "staged.api"),
    **dict.fromkeys(("load_trajectory", "save_trajectory"), "staged.trajectory_folder"),
}


def __getattr__(name: str) -> Any:
    """Look a name up in its module."""
    if name not in __all__:
        raise AttributeError(f"module 'staged' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "staged.trajectory")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List what there is to look up, too."""
    return sorted({*globals(), *__all__})
