"""Files that are absent or complete, whoever writes them and whenever a process is killed.

What is not complete yet has a temporary name that says whose it is, so that processes that write
the same file at once never touch each other's halves, and a dead one's half can be told from it.
"""

import functools
import hashlib
import itertools
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from staged import strict_json

_MAX_JSON_BYTES: Final = 2**30
_TEMPORARY: Final = re.compile(r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-\d+\.tmp")
_PROCESS_TABLE: Final = Path("/proc/self/ns/pid")
_count = itertools.count()


def temporary(path: Path) -> Path:
    """Return a name beside `path` that no other process, on any machine, and no thread uses."""
    # Without dots: what stands before the last two of them is the name of the file.
    owner = f"{_host()}-{os.getpid()}-{next(_count)}"
    return path.with_name(f".{path.name}.{owner}.tmp")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is either absent or complete, whatever happens meanwhile."""
    half = temporary(path)
    try:
        with half.open("wb") as file:
            file.write(data)
            os.fsync(file.fileno())
        move_into_place(half, path)
    finally:
        half.unlink(missing_ok=True)


def move_into_place(half: Path, path: Path) -> None:
    """Rename a synced file and make the rename durable."""
    half.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make durable which files a folder has."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def halves(folder: Path, *, everyones: bool = False) -> Iterator[tuple[Path, str]]:
    """Yield temporaries of `folder` that nobody will finish, and the names they were to get.

    Args:
        folder: An existing one.
        everyones: All there are, for who holds the lock of those that write them. Otherwise those
            whose process is dead; whether one on another machine is cannot be seen from here, and
            its temporaries are left alone.
    """
    for path in folder.iterdir():
        match = _TEMPORARY.fullmatch(path.name)
        if match and (everyones or (match["host"] == _host() and not _alive(int(match["pid"])))):
            yield path, match["name"]


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON, whole."""
    write_whole(path, (strict_json.dumps(value) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read bounded JSON; ValueError names the file."""
    return strict_json.read(path, max_bytes=_MAX_JSON_BYTES)


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
