"""Whether products sum a row in the same order beside other rows as without them: it is tried.

The order depends on shapes alone; whether another one shows depends on the numbers. Of ordinary
ones it hardly does in bfloat16, where one sum in some ten thousand is rounded otherwise: a trial of
few rows sees nothing, and a picture of many steps does. So here terms cancel in pairs. What is left
of a sum is nothing but the rounding errors of its order, and another order leaves others nearly
everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staged.model.lora import LoraLinear


def products_of(layers: Iterable[nn.Linear]) -> set[tuple[int, int, bool]]:
    """Inputs, outputs and whether there is a bias of the products that layers are made of."""
    found = set()
    for layer in layers:
        found.add((layer.in_features, layer.out_features, layer.bias is not None))
        if isinstance(layer, LoraLinear):
            rank = layer.low_rank.rank
            found |= {(layer.in_features, rank, False), (rank, layer.out_features, False)}
    return found


def sums_alike(product: tuple[int, int, bool], parts: Sequence[int], like: Tensor) -> bool:
    """Whether rows come out of one product with the same bits as where each part has its own.

    Args:
        product: Of `products_of`.
        parts: Rows of each part.
        like: Of its device and dtype.
    """
    rows, weight, bias = _cancelling(product, sum(parts), like)
    together = F.linear(rows, weight, bias)
    alone = [F.linear(part.contiguous(), weight, bias) for part in rows.split(list(parts))]
    return torch.equal(together, torch.cat(alone))


def places_alike(product: tuple[int, int, bool], num_rows: int, like: Tensor) -> bool:
    """Whether one and the same row comes out with the same bits in every place of a product.

    Args:
        product: Of `products_of`.
        num_rows: Of the product.
        like: Of its device and dtype.
    """
    row, weight, bias = _cancelling(product, 1, like)
    found = F.linear(row.repeat(num_rows, 1), weight, bias)
    return torch.equal(found, found[:1].expand_as(found))


def _cancelling(
    product: tuple[int, int, bool], num_rows: int, like: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows, weight and bias of a product whose terms cancel in pairs."""
    num_inputs, num_outputs, has_bias = product
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(num_inputs, generator=generator)
    half, odd = divmod(num_inputs, 2)

    def paired(num_rows: int, sign: float) -> Tensor:
        """Rows of which the second of each pair is the first times a sign."""
        drawn = torch.randn(num_rows, half, generator=generator)
        whole = torch.cat([drawn, sign * drawn, drawn.new_zeros(num_rows, odd)], dim=1)
        return whole[:, order].to(like.device, like.dtype)

    rows, weight = paired(num_rows, -1.0), paired(num_outputs, 1.0)
    return rows, weight, weight.new_zeros(num_outputs) if has_bias else None
