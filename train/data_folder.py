"""Where a data set must lie to be trained on; told before anything is loaded for it."""

from __future__ import annotations

from pathlib import Path

from staged.shards.folder import INDEX


def finished(path: str | Path) -> Path:
    """A folder on the disk that holds a finished data set.

    Args:
        path: Of it; `~` is somebody's home.

    Raises:
        ValueError: There is no such folder, or its data set has not been finished.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ValueError(f"data folder {folder} does not exist; build it, or correct data.path")
    if not (folder / INDEX).is_file():
        raise ValueError(
            f"{folder} holds no finished data set (no {INDEX}); let its build finish, or correct "
            "data.path"
        )
    return folder
