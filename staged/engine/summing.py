"""Whether products sum a row in the same order beside other rows as without them: it is tried.

The order depends on shapes alone; whether another one shows depends on the numbers. Of ordinary
ones it hardly does in bfloat16, where one sum in some ten thousand is rounded otherwise: a trial of
few rows sees nothing, and a picture of many steps does. So here terms cancel in pairs. What is left
of a sum is nothing but the rounding errors of its order, and another order leaves others nearly
everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staged.model.lora import LoraLinear
from staged.model.quantizations import Quantization
from staged.model.quantized import multiply, quantization_of, quantize


class Product(NamedTuple):
    """What kernels see of a layer.

    Attributes:
        num_inputs: Of a row.
        num_outputs: Of a row.
        has_bias: Whether the kernel adds one.
        quantization: To what the weight was rounded, where kernels know of it.
    """

    num_inputs: int
    num_outputs: int
    has_bias: bool
    quantization: Quantization = "none"


def products_of(layers: Iterable[nn.Linear]) -> set[Product]:
    """The products that layers are made of."""
    found = set()
    for layer in layers:
        found.add(_own(layer))
        if isinstance(layer, LoraLinear):
            rank = layer.low_rank.rank
            found.add(Product(layer.in_features, rank, has_bias=False))
            found.add(Product(rank, layer.out_features, has_bias=False))
    return found


def _own(layer: nn.Linear) -> Product:
    sizes, kind = (layer.in_features, layer.out_features), quantization_of(layer.weight)
    if kind == "none":
        return Product(*sizes, has_bias=layer.bias is not None)
    # Scale and bias come after the product, and int8 is widened before it.
    return Product(*sizes, has_bias=False, quantization="none" if kind == "int8" else kind)


def sums_alike(product: Product, parts: Sequence[int], like: Tensor) -> bool:
    """Whether rows come out of one product with the same bits as where each part has its own.

    Args:
        product: Of `products_of`.
        parts: Rows of each part.
        like: Of its device and dtype.
    """
    rows, weight, bias = _cancelling(product, sum(parts), like)
    together = _multiplied(product, rows, weight, bias)
    alone = [
        _multiplied(product, part.contiguous(), weight, bias) for part in rows.split(list(parts))
    ]
    return torch.equal(together, torch.cat(alone))


def places_alike(product: Product, num_rows: int, like: Tensor) -> bool:
    """Whether one and the same row comes out with the same bits in every place of a product.

    Args:
        product: Of `products_of`.
        num_rows: Of the product.
        like: Of its device and dtype.
    """
    row, weight, bias = _cancelling(product, 1, like)
    found = _multiplied(product, row.repeat(num_rows, 1), weight, bias)
    return torch.equal(found, found[:1].expand_as(found))


def _multiplied(product: Product, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if product.quantization == "none":
        return F.linear(rows, weight, bias)
    # What was paired stays so: a number and its opposite are rounded to opposites.
    return multiply(rows, *quantize(weight, product.quantization, weight.dtype), bias)


def _cancelling(
    product: Product, num_rows: int, like: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows, weight and bias of a product whose terms cancel in pairs."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(product.num_inputs, generator=generator)
    half, odd = divmod(product.num_inputs, 2)

    def paired(num_rows: int, sign: float) -> Tensor:
        """Rows of which the second of each pair is the first times a sign."""
        drawn = torch.randn(num_rows, half, generator=generator)
        whole = torch.cat([drawn, sign * drawn, drawn.new_zeros(num_rows, odd)], dim=1)
        return whole[:, order].to(like.device, like.dtype)

    rows, weight = paired(num_rows, -1.0), paired(product.num_outputs, 1.0)
    return rows, weight, weight.new_zeros(product.num_outputs) if product.has_bias else None
