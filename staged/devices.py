"""The device that a name stands for."""

from __future__ import annotations

import torch


def choose_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, or the CPU.

    Raises:
        ValueError: There is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r}: {error}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices that "
            "torch can use; choose auto or cpu"
        )
    return device
