"""One trajectory as a folder that people open: `trajectory.json`, its images, and `final.png`."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from staged import images
from staged.jobs.files import write_whole
from staged.trajectory import MAX_JSON_BYTES, ImageRef, Trajectory

TRAJECTORY: Final = "trajectory.json"
FINAL: Final = "final.png"
_OURS: Final = re.compile(r"\d+\.(?:png|webp|jpg)|final\.png", re.ASCII)


def save_trajectory(folder: Path | str, trajectory: Trajectory) -> Trajectory:
    """Write a trajectory into a folder, in place of one that stands there.

    Args:
        folder: Created if need be.
        trajectory: Its images must be loaded.

    Returns:
        The trajectory, its images named as the files are.

    Raises:
        ValueError: an image is not loaded.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Absent until everything else is there: whoever finds it finds a whole trajectory.
    (folder / TRAJECTORY).unlink(missing_ok=True)
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name):
            path.unlink()
    named = []
    for i, ref in enumerate(trajectory.images):
        extension, _, _ = images.probe(ref.loaded)
        named.append(replace(ref, name=f"{i}.{extension}"))
        write_whole(folder / f"{i}.{extension}", ref.loaded)
    trajectory = trajectory.with_images(named)
    if trajectory.last_sketch is not None and trajectory.last_sketch.image.png is not None:
        write_whole(folder / FINAL, trajectory.last_sketch.image.png)
    write_whole(folder / TRAJECTORY, f"{trajectory.to_json()}\n".encode())
    return trajectory


def load_trajectory(folder: Path | str) -> Trajectory:
    """Read what `save_trajectory` wrote; nothing read is trusted.

    Args:
        folder: The folder, or the path of its `trajectory.json`.

    Raises:
        ValueError: a file is missing, too large, or not what it should be; names the file.
    """
    path = Path(folder)
    path = path / TRAJECTORY if path.is_dir() else path
    text = _read(path, MAX_JSON_BYTES)
    try:
        trajectory = Trajectory.from_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    loaded = []
    for ref in trajectory.images:
        assert ref.name is not None  # JSON knows images by name only; names hold no slashes
        data = _read(path.with_name(ref.name), images.MAX_IMAGE_BYTES)
        try:
            images.probe(data)
        except ValueError as error:
            raise ValueError(f"{path.with_name(ref.name)}: {error}") from None
        loaded.append(ImageRef(png=data, name=ref.name))
    return trajectory.with_images(loaded)


def _read(path: Path, limit: int) -> bytes:
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    if path.stat().st_size > limit:
        raise ValueError(f"{path} exceeds {limit} bytes")
    return path.read_bytes()
