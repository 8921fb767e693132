"""Finding our applications, and never a user's files of the same names.

`train`, `eval` and `data_pipelines` are names that many folders have, and `python -m` looks into
the working directory first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Final

import staged
from staged.command_line.running import run

HOME: Final = Path(staged.__file__).resolve().parents[1]
"""The folder that holds `staged` and its applications."""
APPLICATIONS: Final = ("data_pipelines", "eval", "train")


class _Finder:
    """Takes our applications from beside `staged`, whatever the search path says."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(HOME)]) if name in APPLICATIONS else None


def prefer_ours() -> None:
    """From here on, import our applications from beside `staged` only.

    Raises:
        ValueError: Another module of such a name is imported already; says which.
    """
    for name in APPLICATIONS:
        if (module := sys.modules.get(name)) is not None:
            origin = getattr(module, "__file__", None) or next(iter(module.__path__))
            require_ours(origin, name)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    # Processes that are started afresh inherit the search path, but no finder.
    at = next((i for i, entry in enumerate(sys.path) if _has_one(entry)), len(sys.path))
    if at < len(sys.path) and Path(sys.path[at]).resolve() != HOME:
        sys.path.insert(at, str(HOME))


def _has_one(entry: str) -> bool:
    """Whether an entry of the search path has a module of one of the names."""
    return any(
        (Path(entry) / name / "__init__.py").is_file() or (Path(entry) / f"{name}.py").is_file()
        for name in APPLICATIONS
    )


def require_ours(file: str, name: str) -> None:
    """Refuse an application that does not stand beside `staged`.

    Args:
        file: Of a module of the application.
        name: Of the application.

    Raises:
        ValueError: It is another one; says what shadows ours.
    """
    found = Path(file).resolve()
    if (HOME / name) not in found.parents:
        raise ValueError(
            f"{found} shadows `{name}` of staged, which is in {HOME / name}: rename it, start from "
            f"another folder, or use the `staged` command, which never takes it"
        )


def run_as_module(name: str, file: str, main: Callable[[], int]) -> int:
    """Run an application that was started by `python -m NAME` or `torchrun -m NAME`.

    Args:
        name: Of the application.
        file: Of its `__main__`.
        main: Its command.

    Returns:
        The exit status; see `run`.
    """

    def command() -> int:
        require_ours(file, name.partition(".")[0])
        prefer_ours()
        return main()

    return run(name, command)
