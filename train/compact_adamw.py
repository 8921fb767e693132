"""AdamW whose moments take two bytes a weight, or one, instead of four.

In 8 bits a moment is a level of a fixed scale times the largest of its block (Dettmers et al.,
arXiv:2110.02861). Blocks lie within rows, so that a matrix cut by rows among any number of ranks
keeps the same blocks, and a state is taken up by another number of them. Of the second moment the
root is kept, and never rounded to zero: an update divided by it would have no bound.

Letters: r rows, c columns, b blocks of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.kept import Kept
from train.sharding import local

BLOCK = 256
"""Numbers that share a scale."""
_CHUNK = 1 << 24  # numbers of a matrix that are widened at a time
_MIN_NUMBERS = 4096  # smaller ones, norms and biases, stay in float32


class CompactAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101) over narrow moments."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        states: Literal["bfloat16", "8bit"],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        """Take parameters.

        Args:
            groups: `params`, float32, and their decoupled `weight_decay`.
            states: What moments of matrices are kept in.
            lr: Learning rate.
            betas: Decay rates of both moments.
            eps: Added to the root of the second one.
        """
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self._states = states

    def kept_for(self, parameter: nn.Parameter) -> dict[str, Kept]:
        """What there is for a parameter after a step, by name."""
        shape = tuple(parameter.shape)
        if parameter.ndim != 2 or parameter.numel() < _MIN_NUMBERS:
            dtype = torch.float32
        elif self._states == "bfloat16":
            dtype = torch.bfloat16
        else:
            scales = Kept((shape[0], -(-shape[1] // BLOCK)))
            codes = Kept(shape, torch.uint8)
            return {
                "step": Kept(()),
                **{"exp_avg": codes, "exp_avg_scale": scales},
                **{"exp_avg_root": codes, "exp_avg_root_scale": scales},
            }
        return {"step": Kept(()), "exp_avg": Kept(shape, dtype), "exp_avg_sq": Kept(shape, dtype)}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    kept = self.kept_for(parameter)
                    state.update({key: each.zeros(parameter) for key, each in kept.items()})
                parts = {name: local(tensor) for name, tensor in state.items()}
                _update(local(parameter), local(parameter.grad), parts, group)


def _update(
    weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
) -> None:
    """One step over this rank's part of a parameter, some rows at a time."""
    beta1, beta2 = group["betas"]
    # Of the tensor, not of a number in it: a GPU is not waited for.
    step = state["step"].add_(1)
    length = group["lr"] / (1 - beta1**step)
    correction = (1 - beta2**step).sqrt()
    for rows in _chunks(weight):
        grad = gradient[rows].float()
        first, second = _moments(state, rows)
        first.lerp_(grad, 1 - beta1)
        second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        _keep(state, rows, first, second)
        change = first.mul_(length).div_(second.sqrt_().div_(correction).add_(group["eps"]))
        weight[rows].mul_(1 - group["lr"] * group["weight_decay"]).sub_(change)


def _chunks(weight: Tensor) -> Iterator[slice]:
    if weight.ndim != 2:
        yield slice(None)
        return
    rows = max(1, _CHUNK // max(weight.shape[1], 1))
    for start in range(0, len(weight), rows):
        yield slice(start, start + rows)


def _moments(state: dict[str, Tensor], rows: slice) -> tuple[Tensor, Tensor]:
    """Both moments of some rows, as float32 of their own."""
    first = state["exp_avg"][rows]
    if first.dtype == torch.uint8:
        second = decoded(state["exp_avg_root"][rows], state["exp_avg_root_scale"][rows], False)
        return decoded(first, state["exp_avg_scale"][rows], True), second.square_()
    return first.float().clone(), state["exp_avg_sq"][rows].float().clone()


def _keep(state: dict[str, Tensor], rows: slice, first: Tensor, second: Tensor) -> None:
    if state["exp_avg"].dtype == torch.uint8:
        for name, moment in (("exp_avg", first), ("exp_avg_root", second.sqrt())):
            codes, scales = encoded(moment, name == "exp_avg")
            state[name][rows] = codes
            state[f"{name}_scale"][rows] = scales
        return
    state["exp_avg"][rows] = first.to(state["exp_avg"].dtype)
    state["exp_avg_sq"][rows] = second.to(state["exp_avg_sq"].dtype)


@lru_cache
def levels(signed: bool, device: torch.device) -> Tensor:
    """The 256 levels between -1, or 0, and 1: seven decades, the largest with most of them.

    Args:
        signed: Between -1 and 1, or between 0 and 1.
        device: Where they are to lie.

    Returns:
        (256,) float32, growing; 0 and 1 among them.
    """
    found = [0.0, 1.0]
    for decade in range(7):
        count = 1 << (6 - decade if signed else 7 - decade)
        edges = torch.linspace(0.1, 1.0, count + 1, dtype=torch.float64)
        middles = ((edges[:-1] + edges[1:]) / 2 * 10.0**-decade).tolist()
        found += middles + ([-level for level in middles] if signed else [])
    return torch.tensor(sorted(found), dtype=torch.float32, device=device)


def encoded(values: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """Round to levels.

    Args:
        values: (r, c) float32; at least 0 where not `signed`.
        signed: Which levels.

    Returns:
        (r, c) uint8 levels and (r, b) float32 scales.
    """
    rows, columns = values.shape
    blocks = F.pad(values, (0, -columns % BLOCK)).view(rows, -(-columns // BLOCK), BLOCK)
    scales = blocks.abs().amax(dim=-1)
    scale = levels(signed, values.device)
    shares = blocks / scales.clamp(min=torch.finfo(torch.float32).tiny)[..., None]
    codes = torch.bucketize(shares, (scale[1:] + scale[:-1]) / 2, out_int32=True)
    if not signed:
        # Level 0 is for nothing but 0.
        codes = codes.clamp_(min=1).where(shares > 0, 0)
    return codes.flatten(1)[:, :columns].to(torch.uint8), scales


def decoded(codes: Tensor, scales: Tensor, signed: bool) -> Tensor:
    """The values of levels; see `encoded`.

    Returns:
        (r, c) float32.
    """
    values = levels(signed, codes.device)[codes.int()]
    spread = scales.repeat_interleave(BLOCK, dim=1)[:, : codes.shape[1]]
    return values.mul_(spread)
