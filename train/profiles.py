"""Traces of chosen steps, and of memory that ran out: what a device did, who held its memory."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from torch.profiler import ProfilerActivity, profile

_MAX_EVENTS = 200_000


def profile_folder(out: Path) -> Path:
    """Where the traces of a run lie."""
    return out / "profile"


class TraceRequests:
    """A context in which SIGUSR1 asks for a trace of the next step, instead of ending the process.

    A file would have to be looked for after every step, on a file system that may be far away.
    """

    def __init__(self) -> None:
        """Nobody has asked."""
        self._asked = False
        self._before: Any = None

    def __enter__(self) -> Self:
        """Take over the signal; in another thread than the main one there is none to take."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGUSR1, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signal back."""
        if self._before is not None:
            signal.signal(signal.SIGUSR1, self._before)

    def taken(self) -> bool:
        """Whether somebody has asked since this was looked at last."""
        asked, self._asked = self._asked, False
        return asked

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True


@contextmanager
def watched_memory(out: Path, rank: int, device: torch.device, *, history: bool) -> Iterator[None]:
    """Leave a snapshot of a CUDA device's memory in `<out>/profile` where a block runs out of it.

    For pytorch.org/memory_viz: which pieces there are and, with a history, who asked for them.

    Args:
        out: The run's folder.
        rank: Of this process; each writes its own file.
        device: Of the run.
        history: Keep who asks for memory.
    """
    if device.type != "cuda":
        yield
        return
    if history:
        torch.cuda.memory._record_memory_history(max_entries=_MAX_EVENTS, stacks="python")
    try:
        yield
    except torch.OutOfMemoryError:
        # The traceback still holds what the step held.
        path = profile_folder(out) / f"out-of-memory-rank{rank}.pickle"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.cuda.memory._dump_snapshot(str(path))
        except (OSError, RuntimeError) as error:  # what matters is that memory ran out
            print(f"no snapshot of the memory in {path}: {error}", file=sys.stderr)
        else:
            print(f"who held the memory is in {path} (pytorch.org/memory_viz)", file=sys.stderr)
        raise
    finally:
        if history:
            torch.cuda.memory._record_memory_history(enabled=None)


@contextmanager
def profiled(
    wanted: bool, out: Path, step: int, rank: int, device: torch.device, *, history: bool = False
) -> Iterator[None]:
    """Trace a block into `<out>/profile`, if that is wanted; what it computes stays the same.

    A trace for Perfetto or chrome://tracing, with shapes and bytes of every operation; on CUDA
    devices also a snapshot of the allocator's memory, with who asked for it, for
    pytorch.org/memory_viz.

    Args:
        wanted: Otherwise nothing is done.
        out: The run's folder.
        step: Whose block it is.
        rank: Of this process; each writes its own files.
        device: Of the run.
        history: Who asks for memory is kept in any case, and further on.

    Raises:
        OSError: A file cannot be written.
    """
    if not wanted:
        yield
        return
    folder = profile_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{step:08d}-rank{rank}"
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
        if not history:
            torch.cuda.memory._record_memory_history(max_entries=_MAX_EVENTS)
    with profile(activities=activities, record_shapes=True, profile_memory=True) as trace:
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # kernels may end long after they were asked for
    if device.type == "cuda":
        torch.cuda.memory._dump_snapshot(str(folder / f"{name}.pickle"))
        if not history:
            torch.cuda.memory._record_memory_history(enabled=None)
    trace.export_chrome_trace(str(folder / f"{name}.json.gz"))
