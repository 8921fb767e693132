"""Write safetensors files tensor by tensor.

The library's own writer holds every tensor's bytes at once, which for BAGEL is 29 GB beside the
model. The format is small: a length, a JSON header, the data (huggingface/safetensors, README).
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

__all__ = ["DTYPES", "require_written", "write_safetensors"]

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Types that are written, by the format's names."""


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
    read: Callable[[str], Tensor] | None = None,
) -> None:
    """Write tensors in the order given.

    Args:
        path: File to write; not atomic on its own.
        tensors: By name; on any device, with `read` on meta.
        dtype: Stored type of real tensors; None keeps each tensor's own.
        metadata: Kept in the header.
        read: Gives a tensor when its turn has come, where not all of them are to be in memory.

    Raises:
        ValueError: A tensor has a type that the format lacks.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    types: dict[str, torch.dtype] = {}
    end = 0
    for name, tensor in tensors.items():
        stored = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        if stored not in DTYPES:
            raise ValueError(f"{name} is {stored}; safetensors stores {list(DTYPES)}")
        types[name] = stored
        start, end = end, end + math.prod(tensor.shape) * stored.itemsize
        header[name] = {
            "dtype": DTYPES[stored],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins aligned
    with Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name, tensor in tensors.items():
            given = tensor if read is None else read(name)
            assert given.shape == tensor.shape, name
            data = given.detach().to(device="cpu", dtype=types[name])
            file.write(_bytes(data).numpy().data)


def require_written(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    *,
    read: Callable[[str], Tensor] | None = None,
) -> None:
    """Require that the library reads from a file, bit by bit, what was to be written.

    Args:
        path: What `write_safetensors` wrote from the same arguments.
        tensors: By name.
        dtype: Stored type of real tensors.
        read: Gives a tensor once more when its turn has come.

    Raises:
        OSError: A tensor is missing, is another, or there is one too many.
    """
    with safe_open(path, framework="pt") as file:
        if others := set(file.keys()) ^ set(tensors):
            raise OSError(f"{path} came back with other tensors ({min(others)}); check the disk")
        for name, tensor in tensors.items():
            given = tensor if read is None else read(name)
            if dtype is not None and tensor.is_floating_point():
                given = given.to(dtype)
            found, given = file.get_tensor(name), given.detach().cpu()
            if found.dtype != given.dtype or not torch.equal(_bytes(found), _bytes(given)):
                raise OSError(f"{name} came back from {path} as something else; check the disk")


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
