"""Section environment: what this machine is, and the ceilings that other numbers stand under."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from functools import partial
from pathlib import Path

import torch

from benchmarks.parts.harness import Recorder, Setup, time_s

_PACKAGES = (
    "torch", "triton", "numpy", "pillow", "safetensors", "einops", "networkx", "tokenizers",
    "diffusers", "transformers", "scipy", "flash-attn", "tensorboard",
)  # fmt: skip


def run(setup: Setup, record: Recorder) -> None:
    """Record versions and hardware, then measure matrix products and copies."""
    record.note(
        "machine",
        platform=platform.platform(),
        cpus=os.cpu_count(),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
    )
    record.note("versions", **{name: _version(name) for name in _PACKAGES})
    record.note("code", commit=_output("git", "rev-parse", "HEAD"))
    if setup.on_cuda:
        _describe_gpu(setup, record)
    side = 256 if setup.tiny else 8192
    for dtype in (torch.bfloat16, torch.float32):
        # Random numbers: a product of zeros draws less power and runs faster than real ones.
        a, b = (torch.randn(side, side, device=setup.device).to(dtype) for _ in range(2))
        seconds = time_s(partial(torch.matmul, a, b), setup, repeats=10)
        name = f"matmul_{str(dtype).removeprefix('torch.')}"
        record.add(name, 2 * side**3 / seconds / 1e12, "TFLOP/s", side=side)
    count = (1 if setup.tiny else 2048) << 20
    source = torch.randint(256, (count,), dtype=torch.uint8, device=setup.device)
    target = torch.empty_like(source)
    seconds = time_s(lambda: target.copy_(source), setup, repeats=10)
    record.add("copy", 2 * count / seconds / 1e12, "TB/s", bytes_read_and_written=2 * count)


def _describe_gpu(setup: Setup, record: Recorder) -> None:
    properties = torch.cuda.get_device_properties(setup.device)
    record.note(
        "gpu",
        model=properties.name,
        memory_gib=round(properties.total_memory / 2**30, 1),
        capability=list(torch.cuda.get_device_capability(setup.device)),
        multiprocessors=properties.multi_processor_count,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        driver=_output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        architectures=torch.cuda.get_arch_list(),
        attention={
            "flash": torch.backends.cuda.flash_sdp_enabled(),
            "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
            "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
        },
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    """First line that a command prints; None where it does not run."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, cwd=Path(__file__).parent
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().split("\n")[0] if done.returncode == 0 else None
