"""Pictures in files, each once, under the SHA-256 of its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from pathlib import Path

from staged import images
from staged.jobs.files import sweep, write_whole


class PictureFolder:
    """A folder of pictures, for one process; one thread at a time may change what is in it."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, made where something is written."""
        self._folder = folder

    def write(self, data: bytes) -> str:
        """Write a picture, durably, unless it is there; returns its name.

        Raises:
            ValueError: It is no image.
            OSError: It cannot be written.
        """
        name = picture_name(data)
        path = self._path(name)
        if not path.is_file():
            write_whole(path, data)
        return name

    def read(self, name: str) -> bytes:
        """Read a picture by its name.

        Raises:
            ValueError: It cannot be read; names the file.
        """
        return images.read_file(self._path(name))

    def remove(self, name: str) -> None:
        """Take a picture away, if it is there."""
        self._path(name).unlink(missing_ok=True)

    def keep_only(self, names: Container[str]) -> None:
        """Take away all others, and halves that a killed process left."""
        for folder in sorted(self._folder.glob("??")):
            sweep(folder, lambda _: True, everyones=True)
            for path in folder.iterdir():
                if path.name not in names:
                    path.unlink()

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name


def picture_name(data: bytes) -> str:
    """Name a picture by what is in it: 64 hexadecimal digits, and png, webp or jpg.

    Raises:
        ValueError: It is no image.
    """
    return f"{hashlib.sha256(data).hexdigest()}.{images.probe(data)[0]}"
