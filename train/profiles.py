"""Traces of chosen steps: what a device did when, and who held its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

_MAX_EVENTS = 200_000


@contextmanager
def profiled(wanted: bool, out: Path, step: int, rank: int, device: torch.device) -> Iterator[None]:
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

    Raises:
        OSError: A file cannot be written.
    """
    if not wanted:
        yield
        return
    folder = out / "profile"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{step:08d}-rank{rank}"
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
        torch.cuda.memory._record_memory_history(max_entries=_MAX_EVENTS)
    with profile(activities=activities, record_shapes=True, profile_memory=True) as trace:
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # kernels may end long after they were asked for
    if device.type == "cuda":
        torch.cuda.memory._dump_snapshot(str(folder / f"{name}.pickle"))
        torch.cuda.memory._record_memory_history(enabled=None)
    trace.export_chrome_trace(str(folder / f"{name}.json.gz"))
