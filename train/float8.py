"""Products of the decoder's layers in float8, by torchao, for GPUs that multiply it.

What comes in and weights are rounded to 3 bits of mantissa, gradients to 2, each tensor over its
own largest value. What is kept, sums of gradients, norms, attention, and all that is outside the
decoder's layers stay as they are: the head and what leads in and out are small or tell apart what
lies close.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staged.devices import require_capability
from staged.model.bagel import Bagel
from staged.model.weights import listed
from train.settings import TrainSettings

_CAPABILITY = (8, 9)
_MULTIPLE = 16
"""Of which the kernels want rows and columns of weights to be."""
_ROWS = 131  # of the trial; packs are of any length
_TOLERANCE = {"its result": 0.1, "the gradient of what comes in": 0.15, "that of weights": 0.15}
"""Root of the mean squared error over that of the values. Rounding alone gives .04 to .08."""


def require_float8(settings: TrainSettings, device: torch.device, dtype: torch.dtype) -> None:
    """Require what a run in float8 takes, before it reads any weights.

    Raises:
        ValueError: torchao is not installed, the device has no such products, or they would not be
            added up in bfloat16.
    """
    if settings.matmuls == "as_dtype":
        return
    if find_spec("torchao") is None:
        raise ValueError(
            f"matmuls={settings.matmuls} takes torchao, which is not installed; "
            "pip install staged[float8], or leave it at as_dtype"
        )
    if settings.matmuls == "float8_emulated":
        return
    require_capability(
        device,
        _CAPABILITY,
        "matmuls=float8",
        such_as="H100, L40S, B200",
        way_out="leave it at as_dtype, or try what it does to losses with float8_emulated, which "
        "is slow",
    )
    require_float8_sums(settings, dtype)


def require_float8_sums(settings: TrainSettings, dtype: torch.dtype) -> None:
    """Require products in float8 to be added up in bfloat16, as kernels do.

    Raises:
        ValueError: They would not be.
    """
    if settings.matmuls == "float8" and dtype is not torch.bfloat16:
        raise ValueError(f"matmuls=float8 takes dtype=bfloat16, and dtype is {settings.dtype}")


def use_float8(model: Bagel, *, emulate: bool) -> str:
    """Let the decoder's linear layers multiply in float8; parameters keep objects and names.

    Args:
        model: Not sharded yet; perhaps on the meta device.
        emulate: Round as float8 does and multiply in the type that is there, on any device.

    Returns:
        How many layers do, and which linear layers do not.

    Raises:
        ValueError: None could.
    """
    from torchao.float8 import convert_to_float8_training

    linear = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear)}
    fit = {
        name
        for name, layer in linear.items()
        if name.startswith("layers.") and not any(size % _MULTIPLE for size in layer.weight.shape)
    }
    if not fit:
        raise ValueError(
            f"matmuls: no linear layer of the decoder has sizes that are multiples of {_MULTIPLE}"
        )
    convert_to_float8_training(
        model, config=_config(emulate), module_filter_fn=lambda _, name: name in fit
    )
    for name in fit:
        model.get_submodule(name).__class__ = _of_any_length()
    others = sorted(
        {name if name.startswith("layers.") else name.split(".")[0] for name in linear.keys() - fit}
    )
    kind = "float8, emulated," if emulate else "float8"
    return f"matmuls: {kind} in {len(fit)} linear layers; not in {listed(others)}"


def float8_problem(
    width: int, inner: int, device: torch.device, dtype: torch.dtype, *, emulate: bool
) -> str:
    """What is wrong with a layer in float8; nothing where results and gradients are right.

    Set against the same layer in float32.

    Args:
        width: Numbers of a row that comes in.
        inner: Of one that goes out.
        device: Of the run.
        dtype: Of what comes in and goes out.
        emulate: As in `use_float8`.
    """
    from torchao.float8 import convert_to_float8_training

    generator = torch.Generator().manual_seed(0)
    rows, weight, back = (
        torch.randn(*shape, generator=generator).to(device, dtype)
        for shape in ((_ROWS, width), (inner, width), (_ROWS, inner))
    )
    results: list[list[Tensor]] = []
    for kind in (dtype, torch.float32):
        # Sequential: a converter replaces layers of what it is given.
        net = nn.Sequential(nn.Linear(width, inner, bias=False, device=device, dtype=kind))
        if not results:
            convert_to_float8_training(net, config=_config(emulate))
        leaves = [rows.to(kind, copy=True).requires_grad_(), next(net.parameters())]
        with torch.enable_grad():
            leaves[1].data.copy_(weight)
            out = net(leaves[0])
            gradients = torch.autograd.grad(out, leaves, back.to(kind))
        results.append([out.detach(), *gradients])
    for (what, limit), found, exact in zip(_TOLERANCE.items(), *results, strict=True):
        error = float((found.float() - exact).norm() / exact.norm())
        if not error <= limit:  # a NaN is no error below a limit
            return f"{what} is off by {error:.2g} of its size; rounding explains {limit:g}"
    return ""


def _config(emulate: bool) -> Any:
    from torchao.float8 import Float8LinearConfig

    # Kernels add up over multiples of 16; the gradient of weights adds up over a pack's tokens.
    return Float8LinearConfig(emulate=emulate, pad_inner_dim=True)


@lru_cache(maxsize=1)
def _of_any_length() -> type[nn.Linear]:
    """The layer of torchao, also for packs of which an expert has no token."""
    from torchao.float8.float8_linear import Float8Linear

    class Float8OfAnyLength(Float8Linear):  # type: ignore[misc]
        def forward(self, input: Tensor) -> Tensor:
            if not len(input):  # there is no largest value to scale by
                return F.linear(input, self.weight, self.bias)
            result: Tensor = super().forward(input)
            return result

    return Float8OfAnyLength
