"""Where a command will write, checked before it works for minutes.

Nothing is created that stays. A command calls `folder` or `file` for a path of its settings;
`out_folder` and `out_file` do the same as the `type` of an option.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

MIN_FREE_BYTES: Final = 64 * 2**20
"""What must be free where a command writes, if nobody knows better."""
_LINK_TO_NOTHING: Final = "is a link to what is not there; remove it"


def folder(path: Path, *, need_bytes: int = MIN_FREE_BYTES) -> Path:
    """Check that a folder can be written, or made.

    Args:
        path: The folder; it need not be there.
        need_bytes: What will be written, about.

    Returns:
        The path.

    Raises:
        NotADirectoryError: It, or a part of it, is a file.
        OSError: It cannot be written, or its disk is too full.
    """
    _writable(_existing(path), path, need_bytes)
    return path


def file(path: Path, *, need_bytes: int = MIN_FREE_BYTES) -> Path:
    """Check that a file can be written, its folder made if need be; see `folder`.

    Raises:
        IsADirectoryError: It is a folder.
        NotADirectoryError: A part of it is a file, or it is a link into a folder that is not there.
        OSError: It cannot be written, or its disk is too full.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file", str(path))
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "cannot be written", str(path))
    place = path.parent
    if path.is_symlink():  # where it leads is written, perhaps on another disk
        place = Path(os.path.realpath(path)).parent
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, _LINK_TO_NOTHING, str(path))
    _writable(_existing(place), path, need_bytes)
    return path


def out_folder(text: str) -> Path:
    """Read the value of an option that names a folder to write; see `folder`."""
    try:
        return folder(_path(text))
    except NotADirectoryError as error:
        raise argparse.ArgumentTypeError(f"{error.filename}: {error.strerror}") from None


def out_file(text: str) -> Path:
    """Read the value of an option that names a file to write; see `file`."""
    try:
        return file(_path(text))
    except (IsADirectoryError, NotADirectoryError) as error:
        raise argparse.ArgumentTypeError(f"{error.filename}: {error.strerror}") from None


def write_text(path: Path, text: str) -> None:
    """Write a file that a command was told to, its folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def show(text: str, path: Path | None) -> None:
    """Print a text, or write it to a file where one is named; its last line needs no end."""
    if path is None:
        print(text)
    else:
        write_text(path, text + "\n")
        print(f"wrote {path}")


def _path(text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r}: name a path")
    return Path(text).expanduser()


def _existing(path: Path) -> Path:
    """The nearest folder that is there."""
    for place in (path, *path.absolute().parents):
        try:
            # Asked once: between two questions another rank may make the folder.
            mode = place.stat().st_mode
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            if place.is_symlink():
                raise NotADirectoryError(errno.ENOTDIR, _LINK_TO_NOTHING, str(place)) from None
            continue
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, "is a file; name a folder", str(place))
        return place
    raise NotADirectoryError(errno.ENOTDIR, "has no folder above it", str(path))


def _writable(place: Path, path: Path, need_bytes: int) -> None:
    try:
        # Tried, not asked: for root, and on read-only or virtual disks, permissions say little.
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"\0")
            probe.flush()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(errno.ENOSPC, "the disk is full", str(path)) from None
        reason = (error.strerror or "").lower()
        raise PermissionError(
            errno.EACCES, f"{place} cannot be written ({reason})", str(path)
        ) from None
    free = shutil.disk_usage(place).free
    if free < need_bytes:
        raise OSError(
            errno.ENOSPC,
            f"the disk has {free / 1e6:,.0f} MB left and {need_bytes / 1e6:,.0f} MB are needed; "
            "make room, or write elsewhere",
            str(path),
        )
