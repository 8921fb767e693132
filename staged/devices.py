"""Where to compute and in which precision: what `auto` stands for on this machine."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch

AUTO = "auto"
DTYPES = ("float32", "bfloat16")
"""Precisions that our own models compute in, by torch's names."""

S = TypeVar("S")

_SIDE = 256  # of the product that is timed: 33 million operations, a tenth of a second if emulated
_CLEARLY = 1.3  # times float32's speed; hardware reaches 1.7 to 16, emulation 0.02 to 0.8


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Where and how something is computed.

    Attributes:
        device: Where.
        dtype: In which precision.
        words: Both, and why, for whoever looks on.
    """

    device: torch.device
    dtype: torch.dtype
    words: str

    @property
    def dtype_name(self) -> str:
        """As settings and options call it: `float32`, `bfloat16`, ..."""
        return str(self.dtype).removeprefix("torch.")


def choose_arithmetic(device: str, dtype: str, *, begun: str | None = None) -> Arithmetic:
    """Say what `auto` stands for; whatever else is given stays.

    Args:
        device: `auto`, or a torch device.
        dtype: `auto`, or torch's name of a precision. `auto` is `bfloat16` where the device
            multiplies it fast, and `float32` elsewhere.
        begun: The precision in which the work was begun, where it goes on: then `auto` is that one,
            however fast this machine is with it.

    Raises:
        ValueError: As `choose_device`.
    """
    where = choose_device(device)
    if dtype != AUTO:
        return _computing(where, dtype, "")
    fast = multiplies_bfloat16_fast(where)
    best = "bfloat16" if fast else "float32"
    if begun is not None and begun != best:
        return _computing(where, begun, f", in which it was begun; {best} is faster here")
    if where.type != "cpu":
        return _computing(where, best, "" if fast else ", without bfloat16 in hardware")
    gain = f"{bfloat16_gain():.1f}" if fast else f"{bfloat16_gain():.2f}"
    return _computing(where, best, f" (products in bfloat16 run at {gain} times its float32 speed)")


def settle(settings: S, *, begun: str | None = None, tell: Callable[[str], Any] = print) -> S:
    """Replace `auto` in settings by what it stands for, so that they can be kept as a record.

    Args:
        settings: A dataclass with `dtype` and, unless it is of the CPU alone, `device`.
        begun: As in `choose_arithmetic`.
        tell: Told what was chosen, in a line.

    Raises:
        ValueError: As `choose_device`.
    """
    given: Any = settings
    chosen = choose_arithmetic(getattr(given, "device", "cpu"), given.dtype, begun=begun)
    tell(chosen.words)
    found = {"dtype": chosen.dtype_name, "device": str(chosen.device)}
    names = {field.name for field in dataclasses.fields(given)}
    settled: S = dataclasses.replace(given, **{k: v for k, v in found.items() if k in names})
    return settled


def choose_device(name: str) -> torch.device:
    """`auto` is a CUDA device where there is one, or the CPU.

    Under torchrun, `auto` and `cuda` are one CUDA device for each process.

    Raises:
        ValueError: there is no such device; the message names it.
    """
    if name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r}: {error}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices that "
            "torch can use; choose auto or cpu"
        )
    return device


def require_capability(
    device: torch.device, least: tuple[int, int], what: str, *, such_as: str, way_out: str
) -> None:
    """Require a GPU of some compute capability.

    Args:
        device: Where something is to be computed.
        least: Major and minor number.
        what: Takes it, for the message: `quantization float8`.
        such_as: GPUs that have it.
        way_out: What to do on other devices.

    Raises:
        ValueError: The device is none.
    """
    is_gpu = device.type == "cuda"
    if is_gpu and torch.cuda.get_device_capability(device) >= least:
        return
    name = torch.cuda.get_device_name(device) if is_gpu else str(device)
    raise ValueError(
        f"{what} takes a GPU of compute capability {least[0]}.{least[1]} or more ({such_as}), and "
        f"the device is {name}; {way_out}"
    )


def multiplies_bfloat16_fast(device: torch.device) -> bool:
    """Whether bfloat16 is multiplied by hardware made for it, and not emulated.

    On a CPU one small product is timed in both precisions: what a processor can do (AVX512-BF16,
    AMX, bf16 of ARM), what torch was built to use of it, and what ATEN_CPU_CAPABILITY or
    ONEDNN_MAX_CPU_ISA forbid, all show in its speed, by a factor that no load hides.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bfloat16_gain() > _CLEARLY


@lru_cache(maxsize=1)
def bfloat16_gain() -> float:
    """Speed of a bfloat16 product on this CPU over float32's; measured once a process."""
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(_SIDE, _SIDE, generator=generator) for _ in range(2)]
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for one another would be timed too
    try:
        float32, bfloat16 = (
            _least_seconds(*(factor.to(dtype) for factor in factors))
            for dtype in (torch.float32, torch.bfloat16)
        )
    finally:
        torch.set_num_threads(num_threads)
    return float32 / bfloat16


def _least_seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    """Least time of a product; the first ones prepare the kernel and fill the caches."""
    seconds: list[float] = []
    while len(seconds) < 20 and sum(seconds) < 0.1:
        began = time.thread_time()  # of the processor: what else runs does not count
        left @ right
        seconds.append(time.thread_time() - began)
    return min(seconds)


def _computing(device: torch.device, dtype: str, why: str) -> Arithmetic:
    kept = getattr(torch, dtype, None)
    if not isinstance(kept, torch.dtype):
        raise ValueError(f"dtype is {dtype!r}; give {AUTO}, {' or '.join(DTYPES)}")
    return Arithmetic(device=device, dtype=kept, words=f"computing on {device} in {dtype}{why}")
