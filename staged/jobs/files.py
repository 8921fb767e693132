"""Files and folders that are absent or complete, whoever writes them, whenever one is killed.

What is not complete yet has a temporary name that says whose it is, so that processes that write
the same file at once never touch each other's halves, and a dead one's half can be told from it.
"""

import errno
import functools
import hashlib
import itertools
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from staged import strict_json

_MAX_JSON_BYTES: Final = 2**30
_TEMPORARY: Final = re.compile(
    r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-\d+(?P<kind>\.tmp|\.old)"
)
_PROCESS_TABLE: Final = Path("/proc/self/ns/pid")
_count = itertools.count()


def temporary(path: Path) -> Path:
    """Return a name beside `path` that no other process, on any machine, and no thread uses.

    Beside what it leads to where it is a link, perhaps on another disk: `move_into_place` then
    changes that, and the link stays.
    """
    path = target(path)
    # Without dots: what stands before the last two of them is the name of the file.
    owner = f"{_host()}-{os.getpid()}-{next(_count)}"
    return path.with_name(f".{path.name}.{owner}.tmp")


def target(path: Path) -> Path:
    """Return where a link leads, whether something is there or not; other paths as they are."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is absent or complete: it appears when the block ends well.

    Args:
        path: What it is called then; its folder is made if need be.

    Yields:
        The file, still under a temporary name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    half = temporary(path)
    try:
        with half.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        move_into_place(half, path)
    finally:
        half.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is either absent or complete, whatever happens meanwhile."""
    with whole(path) as file:
        file.write(data)


@contextmanager
def whole_folder(folder: Path, *, everyones: bool = False) -> Iterator[Path]:
    """Fill a fresh folder that takes the place of `folder` when the block ends well.

    Args:
        folder: Where it shall stand; one that stands there is replaced. A link stays, and leads to
            the new one.
        everyones: As in `sweep`, for halves of the same folder.

    Yields:
        The fresh folder, under a temporary name.
    """
    folder = target(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent, lambda name: name == folder.name, everyones=everyones)
    fresh = temporary(folder)
    fresh.mkdir()
    try:
        yield fresh
        # Contents before the name that leads to them: a power cut must not keep the name alone.
        for path in fresh.rglob("*"):
            sync(path)
        sync(fresh)
        # A full folder is not replaced in one step. A kill between the two leaves the earlier one,
        # whole, under its retired name.
        if folder.exists():
            folder.rename(fresh.with_suffix(".old"))
        fresh.rename(folder)
        sync(folder.parent)
        sweep(folder.parent, lambda name: name == folder.name, everyones=everyones, kind=".old")
        shutil.rmtree(fresh.with_suffix(".old"), ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def move_into_place(half: Path, path: Path) -> None:
    """Rename a synced file to what its `temporary` was made of, and make the rename durable."""
    path = target(path)
    half.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make durable what a file holds, or which files a folder has."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some disks that are not local take it for files alone.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def sweep(
    folder: Path,
    ours: Callable[[str], object],
    *,
    everyones: bool = False,
    kind: Literal[".tmp", ".old"] = ".tmp",
) -> None:
    """Remove halves of files and folders that nobody will finish.

    Args:
        folder: Where they are; nothing is done where it is not.
        ours: Says of the name that one was to get whether it may go.
        everyones: All there are, for who holds the lock of those that write them. Otherwise those
            whose process is dead; whether one on another machine is cannot be seen from here, and
            its halves are left alone.
        kind: Halves, or what `whole_folder` replaced and a kill left.
    """
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or match["kind"] != kind or not ours(match["name"]):
            continue
        if everyones or (match["host"] == _host() and not _alive(int(match["pid"]))):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON, whole."""
    write_whole(path, (strict_json.dumps(value) + "\n").encode())


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Write canonical JSON, a line each, whole."""
    write_whole(path, strict_json.dump_lines(values))


def read_json(path: Path, *, missing: str | None = None) -> Any:
    """Read bounded JSON; ValueError names the file. `missing` is as in `strict_json.read`."""
    return strict_json.read(path, max_bytes=_MAX_JSON_BYTES, missing=missing)


def text_in(path: Path, *keys: str) -> str | None:
    """Return a text of a record in JSON, by the keys that lead to it; None where there is none.

    Raises:
        ValueError: the file is no JSON.
        OSError: the file is there and cannot be read.
    """
    value = read_json(path) if path.is_file() else None
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


@functools.cache
def _host() -> str:
    """Name where a process number means something: containers of one machine have their own."""
    table = _PROCESS_TABLE.readlink() if _PROCESS_TABLE.is_symlink() else ""
    return hashlib.sha256(f"{socket.gethostname()} {table}".encode()).hexdigest()[:8]


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, and alive
    return True
