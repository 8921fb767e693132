"""How sections measure and report."""

from __future__ import annotations

import json
import math
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

import torch

TRACEBACK_LINES = 30
"""Of each failure, from its end."""


class Skip(Exception):
    """A section cannot run here; the message says what it lacks."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Where and how large.

    Attributes:
        device: What is measured.
        tiny: Sizes that finish in a moment on a CPU; the numbers then mean nothing.
    """

    device: torch.device
    tiny: bool

    @property
    def on_cuda(self) -> bool:
        """Whether CUDA's own tools apply."""
        return self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """Of full-size weights and activations."""
        return torch.bfloat16


@dataclass
class Recorder:
    """Measurements of one section, each printed as one JSON line when it is made."""

    section: str
    made: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, **facts: Any) -> None:
        """Record a number.

        Raises:
            ValueError: It is not finite.
        """
        if not math.isfinite(value):
            raise ValueError(f"{self.section} {name} is {value}")
        rounded = {k: _rounded(v) if isinstance(v, float) else v for k, v in facts.items()}
        self.note(name, value=_rounded(value), unit=unit, **rounded)

    def note(self, name: str, **facts: Any) -> None:
        """Record what is no number: a version, or why there is none."""
        self.made.append({"name": name, **facts})
        print(json.dumps({"section": self.section, **self.made[-1]}), flush=True)

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Let the rest of the section go on if the block fails; the section still counts as failed.

        Args:
            name: What the block was to measure.
        """
        try:
            yield
        except Exception as error:
            tail = traceback.format_exc().splitlines()[-TRACEBACK_LINES:]
            self.failed.append(name)
            self.note(name, error=repr(error)[:500], traceback=tail)


class Marks:
    """Moments on the device's own clock, put down without waiting for it."""

    def __init__(self, setup: Setup) -> None:
        """Start with no moment."""
        self._setup = setup
        self._marks: list[Any] = []

    def mark(self) -> None:
        """Put down a moment."""
        if not self._setup.on_cuda:
            self._marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)

    def intervals(self) -> list[float]:
        """Seconds between one moment and the next; waits for the device."""
        pairs = pairwise(self._marks)
        if not self._setup.on_cuda:
            return [end - start for start, end in pairs]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in pairs]


def time_s(call: Callable[[], object], setup: Setup, *, warmup: int = 2, repeats: int = 5) -> float:
    """Median seconds of a call on the device, after warming up."""
    if setup.tiny:
        warmup, repeats = 1, 2
    for _ in range(warmup):
        call()
    marks = Marks(setup)
    marks.mark()
    for _ in range(repeats):
        call()
        marks.mark()
    return median(marks.intervals())


def synchronize(setup: Setup) -> None:
    """Wait until the device is done."""
    if setup.on_cuda:
        torch.cuda.synchronize()


def reset_peak(setup: Setup) -> None:
    """Forget the highest memory use so far, and hand back what is cached."""
    if setup.on_cuda:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(setup: Setup) -> float:
    """Highest memory in use by tensors since `reset_peak`; 0 where it is not counted."""
    return torch.cuda.max_memory_allocated() / 2**30 if setup.on_cuda else 0.0


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
