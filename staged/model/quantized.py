"""Linear layers of the decoder's experts whose weights are kept in a byte each, to generate with.

Nine tenths of BAGEL are these. A weight is rounded over each of its rows, an output of the layer:

    W[o, i] ~ scale[o] * Q[o, i]

    int8    Q in -127..127. The product is that of the rounded weights in the model's own precision,
            which holds all of Q exactly: widened for each call, and scaled after.
    float8  Q in e4m3. What comes in is rounded too, over each of its rows, and both are multiplied
            as they are, where the hardware does that (torch's `scaled_mm`).

Embeddings, norms, head, connectors, vision tower and autoencoder stay as they are: they are small,
or tell apart what lies close.

Letters: n rows, C inputs of a layer, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staged.devices import require_capability
from staged.model.quantizations import Quantization

if TYPE_CHECKING:
    from staged.model.bagel import Bagel
    from staged.model.division import Division

__all__ = [
    "QuantizedLinear",
    "multiply",
    "quantization_of",
    "quantization_of_model",
    "quantize",
    "quantize_experts",
    "quantized_layers",
    "refuse_quantized",
    "require_quantization",
    "require_undivided",
]

_KEPT: Final[dict[torch.dtype, Quantization]] = {
    torch.int8: "int8",
    torch.float8_e4m3fn: "float8",
}
_LARGEST: Final = {"int8": 127.0, "float8": 448.0}
_CAPABILITY: Final = (9, 0)
_MULTIPLE: Final = 16
"""Of which the kernels of float8 want rows and columns of weights to be."""


class QuantizedLinear(nn.Linear):
    """A linear layer whose `weight`, (O, C), has numbers of a byte.

    Attributes:
        weight_scale: (O,), in float32 or the model's precision; see `quantize`.
    """

    weight_scale: Tensor

    @classmethod
    def around(cls, layer: nn.Linear, kind: Quantization) -> Self:
        """Round a layer's weight; on the meta device, make room for one that `take` rounds.

        Args:
            layer: In the model's precision; its bias is taken over as it is.
            kind: Not `none`.
        """
        with torch.device("meta"):
            made = cls(layer.in_features, layer.out_features, bias=layer.bias is not None)
        weight, scale = quantize(layer.weight.detach(), kind, layer.weight.dtype)
        made.weight, made.bias = nn.Parameter(weight, requires_grad=False), layer.bias
        made.register_buffer("weight_scale", scale)
        return made

    @torch.no_grad()
    def take(self, weight: Tensor) -> None:
        """Round an (O, C) weight of any precision, from any device, into this layer's memory."""
        # Moved first: a GPU rounds billions of numbers in a second, a CPU in a minute.
        weight = weight.to(self.weight.device)
        narrow, scale = quantize(weight, quantization_of(self.weight), self.weight_scale.dtype)
        self.weight.copy_(narrow)
        self.weight_scale.copy_(scale)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C) to (n, O), in the dtype of `x`."""
        return multiply(x, self.weight, self.weight_scale, self.bias)


def quantize(weight: Tensor, kind: Quantization, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Round a weight over each of its rows.

    Args:
        weight: (O, C) real.
        kind: Not `none`.
        dtype: The model's precision. The scales of int8 are numbers of it, so that it multiplies by
            exactly those that were divided by; those of float8 are float32, as its kernels want.

    Returns:
        (O, C) of a byte each, and (O,) scales. A row that is not finite has such a scale.
    """
    wide = weight.float()
    largest = torch.linalg.vector_norm(wide, math.inf, dim=1)
    # The least of all precisions' normal numbers, for a row of zeros.
    scale = (largest / _LARGEST[kind]).clamp_(min=torch.finfo(torch.float32).tiny)
    if kind == "float8":
        return (wide / scale[:, None]).to(torch.float8_e4m3fn), scale
    scale = scale.to(dtype)
    steps = (wide / scale.float()[:, None]).round_().clamp_(-_LARGEST[kind], _LARGEST[kind])
    return steps.to(torch.int8), scale


def multiply(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """The product of a quantised layer.

    Whatever surrounds the product of matrices is exact or rounded number by number, so that a row's
    bits depend on others only by the order in which that product sums (`staged.engine.summing`).

    Args:
        x: (n, C).
        weight: (O, C); see `quantize`.
        scale: (O,).
        bias: (O,), in the dtype of `x`.

    Returns:
        (n, O) in the dtype of `x`.
    """
    if weight.dtype == torch.int8:
        product = F.linear(x, weight.to(x.dtype)) * scale
    else:
        product = _float8_product(x, weight, scale)
    return product if bias is None else product + bias


def _float8_product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    if not len(x):  # an expert without tokens; kernels want some
        return x.new_empty(0, len(weight))
    largest = torch.linalg.vector_norm(x, math.inf, dim=1, keepdim=True)
    step = (largest / _LARGEST["float8"]).clamp_(min=torch.finfo(x.dtype).tiny)
    product: Tensor = F.scaled_mm(
        (x / step).to(torch.float8_e4m3fn),
        weight.t(),
        step.float(),
        F.ScalingType.RowWise,
        scale[None],
        F.ScalingType.RowWise,
        output_dtype=x.dtype,
        use_fast_accum=True,
    )
    return product


def quantization_of(weight: Tensor) -> Quantization:
    """To what a layer's weight was rounded."""
    return _KEPT.get(weight.dtype, "none")


def quantize_experts(model: Bagel, kind: Quantization) -> None:
    """Round the weights of all linear layers of both experts, one after another.

    Args:
        model: In the precision that it computes in; its layers are replaced. On the meta device
            they get no numbers, and `QuantizedLinear.take` brings them.
        kind: To what; `none` leaves the model as it is.

    Raises:
        ValueError: float8 cannot multiply layers of such sizes; nothing was changed.
    """
    if kind == "none":
        return
    layers = {
        name: part
        for name, part in model.named_modules()
        if name.startswith("layers.") and isinstance(part, nn.Linear)
    }
    sizes = {size for layer in layers.values() for size in layer.weight.shape}
    if kind == "float8" and (odd := sorted(size for size in sizes if size % _MULTIPLE)):
        raise ValueError(
            f"quantization float8 takes layers whose sizes are multiples of {_MULTIPLE}, and this "
            f"model has some of {', '.join(map(str, odd))}; int8 takes any"
        )
    for name in list(layers):
        owner, _, leaf = name.rpartition(".")
        layer = layers.pop(name)  # so that its weight goes before the next one is rounded
        made = QuantizedLinear.around(layer, kind).train(layer.training)
        setattr(model.get_submodule(owner), leaf, made)
        del layer


def quantized_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The layers whose weights were rounded, by name; also those with a LoRA beside them."""
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear) and quantization_of(part.weight) != "none":
            yield name, part


def quantization_of_model(model: nn.Module) -> Quantization:
    """To what the weights of a model's layers were rounded, those of them that were."""
    return next((quantization_of(layer.weight) for _, layer in quantized_layers(model)), "none")


def refuse_quantized(model: nn.Module, what: str) -> None:
    """Require the weights of a model to be whole.

    Args:
        model: To look at.
        what: Is done with them, for the message: `saved`.

    Raises:
        ValueError: Some were rounded.
    """
    found = next(quantized_layers(model), None)
    if found is not None:
        name, layer = found
        raise ValueError(
            f"weights that were rounded to {quantization_of(layer.weight)} cannot be {what}, and "
            f"{name}.weight is one: load the checkpoint with quantization none"
        )


def require_quantization(kind: Quantization, device: torch.device, dtype: torch.dtype) -> None:
    """Require of a device and a precision what a quantisation takes, before weights are read.

    Raises:
        ValueError: There is no such quantisation; float8 is not multiplied there, or not added up
            in that precision.
    """
    if kind not in get_args(Quantization):
        raise ValueError(
            f"quantization {kind!r:.40}; expected one of {', '.join(get_args(Quantization))}"
        )
    if kind != "float8":
        return
    require_capability(
        device,
        _CAPABILITY,
        "quantization float8",
        such_as="H100, H200, B200",
        way_out="int8 works on any device",
    )
    if dtype != torch.bfloat16:
        raise ValueError(
            "quantization float8 adds up in bfloat16, and dtype is "
            f"{str(dtype).removeprefix('torch.')}: give dtype bfloat16, or quantization int8"
        )


def require_undivided(kind: Quantization, division: Division | None) -> None:
    """Require a model whose weights are rounded not to be divided among processes.

    Raises:
        ValueError: It is to be both: rows would be rounded and parted, but not their scales.
    """
    if kind != "none" and division is not None:
        raise ValueError(
            f"quantization {kind} takes a whole model, and this one is divided among processes: "
            "give quantization none, or no division"
        )
