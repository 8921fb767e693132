"""An accelerator that does not exist: real numbers that refuse to meet the CPU's.

Inside `accelerator()`, whatever is made on or moved to `DEVICE` holds its numbers in host memory
but says it lives on `DEVICE`, takes the code paths of an accelerator, and, like one, raises when
an operation mixes it with a CPU tensor of one dimension or more. What runs here without an error
will not stop on a real one for want of a `.to(device)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
"""Its name: a device that torch knows without a driver, and whose backward pass runs at home."""

_CROSSES = {torch.ops.aten.copy_.default}  # the one operation between two devices


class Elsewhere(Tensor):
    """A tensor of the accelerator; `held` holds its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> Elsewhere:
        made: Elsewhere = Tensor._make_wrapper_subclass(
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=DEVICE,
            requires_grad=real.requires_grad,
        )
        made.held = real
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.held!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Catches what is made on the accelerator out of nothing, or moved there."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Lists(TorchFunctionMode):
    """Lists become tensors, and tensors lists, where no dispatch mode looks."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") == DEVICE:
            return Elsewhere(func(*args, **{**kwargs, "device": "cpu"}))
        if func is Tensor.tolist and isinstance(args[0], Elsewhere):
            return args[0].held.tolist()
        return func(*args, **kwargs)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = tree_flatten((args, kwargs))[0]
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    here = [x for x in tensors if not isinstance(x, Elsewhere) and x.dim() > 0]
    away = any(isinstance(x, Elsewhere) for x in tensors)
    if away and here and func not in _CROSSES:
        raise RuntimeError(f"{func} mixes a tensor on the accelerator with one on the CPU")
    named = [x for x in leaves if isinstance(x, torch.device)]
    lands_away = named[0] == DEVICE if named else away
    real_args, real_kwargs = tree_map(_at_home, (args, kwargs))
    out = func(*real_args, **real_kwargs)
    if not lands_away:
        # A copy, as it would be from another device.
        return out.clone() if away and isinstance(out, Tensor) else out
    out = tree_map(lambda x: Elsewhere(x) if isinstance(x, Tensor) else x, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if away else out


def _at_home(leaf: Any) -> Any:
    if isinstance(leaf, Elsewhere):
        return leaf.held
    return torch.device("cpu") if isinstance(leaf, torch.device) else leaf


@contextmanager
def accelerator() -> Iterator[torch.device]:
    """Let `DEVICE` be an accelerator while the block lasts."""
    swapping = torch.__future__.get_swap_module_params_on_conversion()
    # Modules that change type must not assign to `.data`: the numbers are in `held`.
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with _Lists(), _Mode():
            yield DEVICE
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swapping)


def move(module: nn.Module) -> None:
    """Move parameters and buffers to the accelerator, in place."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            moved = Elsewhere(parameter.detach())
            part._parameters[name] = nn.Parameter(moved, requires_grad=parameter.requires_grad)
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = Elsewhere(buffer)
