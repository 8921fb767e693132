"""Locks on files, which a process that dies gives back whatever killed it.

They hold between machines too where the file system takes them there: NFS 4 and most cluster file
systems do. One that is mounted so that it does not is refused rather than trusted.
"""

import errno
import fcntl
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mounts")
_LOCAL: Final = re.compile(r"nolock|localflock|local_lock=(all|flock|posix)")
_BUSY: Final = (errno.EAGAIN, errno.EACCES)
_MAX_HOLDER: Final = 300  # bytes: a host's name has at most 255
_HOLDER: Final = re.compile(r"process \d+ on [\w.-]+")
_ours: Final = set[tuple[int, str]]()
"""Process and file of each lock that is held and that forked processes shall not have."""


def check_reach(folder: Path, mounts: Path = _MOUNTS) -> None:
    """Refuse a folder on which locks of one machine are unknown to others.

    Args:
        folder: An existing one.
        mounts: The kernel's list; where there is none, nothing is checked.

    Raises:
        ValueError: its file system is mounted so.
    """
    if not mounts.is_file():
        return
    found, options = "", ""
    real = str(folder.resolve())
    for line in filter(None, mounts.read_text(errors="replace").split("\n")):
        point, kind, given = line.split(" ")[1:4]
        point = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), point)
        below = real == point or real.startswith(point.rstrip("/") + "/")
        if below and len(point) >= len(found):
            # Lustre has locks only where the mount says `flock`.
            given += ",nolock" if kind == "lustre" and "flock" not in given.split(",") else ""
            found, options = point, given
    for option in options.split(","):
        if _LOCAL.fullmatch(option):
            raise ValueError(
                f"{folder}: {found} is mounted with {option!r}, so processes on several machines "
                "cannot share a job there; mount it with locks, or run the job as one process"
            )


def try_whole(file: int, path: Path) -> bool:
    """Lock a whole file, until it is closed; False where another process has it.

    Raises:
        ValueError: the file system has no locks.
    """
    return _try(file, path, lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB))


def try_byte(file: int, path: Path, place: int) -> bool:
    """Lock one byte of a file, there or not; False where another process has it.

    The locks of a process on a file end when it closes any descriptor of that file.

    Raises:
        ValueError: the file system has no locks.
    """
    return _try(file, path, lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place))


def free_byte(file: int, place: int) -> None:
    """Give one byte back."""
    fcntl.lockf(file, fcntl.LOCK_UN, 1, place)


@contextmanager
def held(path: Path, *, waiting_for: str = "") -> Iterator[int]:
    """Hold the lock of a file, made if need be; wait for it.

    Args:
        path: The file.
        waiting_for: Said on the error stream if it has to wait.

    Yields:
        The open file.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not try_whole(file, path):
            if waiting_for:
                print(f"waiting for {waiting_for}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


@contextmanager
def alone(path: Path, busy: str, *, forks: bool = False) -> Iterator[None]:
    """Be the only process that has a file's lock; the file is there for that long, and says whose.

    Args:
        path: The file, in a folder that is there.
        busy: Said where another process has it, and then which.
        forks: The process will fork, and what it forked may outlive it: that shall not have the
            lock. It then holds between processes only: within one, who takes it once more meanwhile
            changes nothing.

    Raises:
        ValueError: another process has it, or the file system has no locks.
    """
    if not forks:
        with _alone(path, busy, try_whole):
            yield
        return
    key = (os.getpid(), os.path.realpath(path))
    if key in _ours:  # opened once more, it would be lost where that is closed
        yield
        return
    with _alone(path, busy, lambda file, path: try_byte(file, path, 0)):
        _ours.add(key)
        try:
            yield
        finally:
            _ours.discard(key)


@contextmanager
def alone_in(folder: Path, name: str, busy: str, *, forks: bool = False) -> Iterator[None]:
    """As `alone`, in a folder that is made if need be, and goes away again if it stays empty.

    Args:
        folder: The folder.
        name: Of the lock's file in it.
        busy: As in `alone`.
        forks: As in `alone`.

    Raises:
        ValueError: as `alone`.
        OSError: the folder cannot be made.
    """
    missing = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with alone(folder / name, busy, forks=forks):
            yield
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()


@contextmanager
def _alone(path: Path, busy: str, take: Callable[[int, Path], bool]) -> Iterator[None]:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while True:
            if not take(file, path):
                raise ValueError(busy + _held_by(file))
            if _names(path, file):
                break
            # Whoever had it took the file away meanwhile: this lock keeps nobody out.
            os.close(file)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(file, 0)  # of a process that was killed
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(file)


def _held_by(file: int) -> str:
    """Who says in a lock's file that it has it; nothing where nobody does."""
    said = os.pread(file, _MAX_HOLDER, 0).decode(errors="replace")
    return f" (it is {said})" if _HOLDER.fullmatch(said) else ""


def _names(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _try(file: int, path: Path, lock: Callable[[], None]) -> bool:
    try:
        lock()
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise ValueError(
            f"{path}: this file system has no locks ({error.strerror}); put the job on one that "
            "does, such as a local disk or NFS 4"
        ) from None
    return True
