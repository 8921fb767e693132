"""How much memory a device has, and how much of it is free."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

GIB = 2**30

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")


def memory_of(device: torch.device) -> int:
    """Bytes of memory that a device has, whoever uses them.

    Of a CPU it is the machine's, or less where a container or a job has a limit (cgroups).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([there, *(limit for limit, _ in _limits())])


def free_memory(device: torch.device) -> int:
    """Bytes that this process could have, by what it and others use now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch holds back from the driver is free to us.
        held_back = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + held_back
    return max(min([_available(), *(limit - used for limit, used in _limits())]), 0)


def peak_gib(device: torch.device) -> float | None:
    """The most memory in GiB that this process has held so far; None where no one tells (no Linux).

    Of a GPU it is what tensors took; of a CPU what was resident, code and all.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    try:
        # Not `ru_maxrss`, which a new process has from the one that started it.
        lines = (line.split() for line in _STATUS.read_text(encoding="ascii").split("\n") if line)
        return next((int(words[1]) * 1024 / GIB for words in lines if words[0] == "VmHWM:"), None)
    except (OSError, ValueError, IndexError):
        return None


def gib(size: int) -> str:
    """Bytes in GiB, as a message says them."""
    return f"{size / GIB:.{0 if size >= 10 * GIB else 1}f}"


def _available() -> int:
    """Bytes of the machine that are free or would be given back; all of them where none says."""
    try:
        for line in _MEMINFO.read_text(encoding="ascii").split("\n"):
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass  # no Linux
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits() -> Iterator[tuple[int, int]]:
    """Limits above this process, each with what is used of it and would not be given back."""
    for folder, limit_name, used_name in _groups():
        limit, used = _number(folder / limit_name), _number(folder / used_name)
        if limit is not None:
            yield limit, max((used or 0) - _given_back(folder / "memory.stat"), 0)


def _groups() -> Iterator[tuple[Path, str, str]]:
    """Control groups of this process, inner to outer, with the names of their two files."""
    try:
        lines = _MEMBERSHIP.read_text(encoding="utf-8").split("\n")
    except OSError:
        return
    for line in filter(None, lines):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = _CGROUPS, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root = _CGROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # In a container the path may be the host's; its root is the container's own then.
        inner = root / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(root):
                yield folder, *names


def _number(file: Path) -> int | None:
    """The number in a file; None where there is none, as for `max`, no limit."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _given_back(stat: Path) -> int:
    """Bytes of cached files that the system takes back before it refuses memory."""
    try:
        lines = stat.read_text(encoding="ascii").split("\n")
        fields = dict(line.split()[:2] for line in lines if line)
        return int(fields.get("total_inactive_file", fields.get("inactive_file", "0")))
    except (OSError, ValueError):
        return 0
