"""Muon for the decoder's matrices, AdamW for the rest, and the learning rate at each step."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from train.compact_adamw import CompactAdamW
from train.kept import Kept
from train.parts import part_of
from train.settings import OptimizerSettings
from train.sharding import local, shard_group

# Of a quintic that is as steep at 0 as it can be. It does not settle at 1: values between .7 and
# 1.2 are near enough, and five iterations suffice.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Optimizers:
    """What updates the parameters: one optimizer, or several that divide them.

    Each parameter belongs to one of them; its state is reached by parameter, whichever it is.
    """

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        """Take optimizers of different parameters."""
        self._all = optimizers
        self._owner = {
            parameter: optimizer
            for optimizer in optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }

    def step(self, lr: float) -> None:
        """Update every parameter with the learning rate `lr`."""
        for optimizer in self._all:
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("lr_ratio", 1.0)
            optimizer.step()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for optimizer in self._all:
            optimizer.zero_grad(set_to_none=True)

    def kept_for(self, parameter: nn.Parameter) -> dict[str, Kept]:
        """What there is for a parameter after a step, by name."""
        owner, shape = self._owner[parameter], tuple(parameter.shape)
        if isinstance(owner, Muon):
            return {"momentum": Kept(shape)}
        if isinstance(owner, CompactAdamW):
            return owner.kept_for(parameter)
        return {"step": Kept(()), "exp_avg": Kept(shape), "exp_avg_sq": Kept(shape)}

    def empty_state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Zeros for what is kept for a parameter, to be filled; where it lies, and cut as it is."""
        return {key: kept.zeros(parameter) for key, kept in self.kept_for(parameter).items()}

    def state_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """What is kept for a parameter, by name; empty before the first step."""
        state: dict[str, Tensor] = self._owner[parameter].state[parameter]
        return state

    def set_state(self, parameter: nn.Parameter, state: dict[str, Tensor]) -> None:
        """Take up what was kept for a parameter."""
        self._owner[parameter].state[parameter] = state


def make_optimizers(
    parameters: Mapping[str, nn.Parameter], settings: OptimizerSettings, dtype: torch.dtype
) -> Optimizers:
    """AdamW, with Muon beside it where the settings ask for it.

    Args:
        parameters: By name; Muon takes the matrices of `layers`.
        settings: Rates, decay (of matrices only), which of the two, what AdamW keeps moments in.
        dtype: Of Muon's products.
    """
    # Rows of an embedding or a head are one token's each; they are not to be mixed.
    by_muon: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    for group in _groups(parameters, settings):
        (by_muon if group.pop("by_muon") else rest).append(group)
    optimizers: list[torch.optim.Optimizer] = []
    if rest and settings.states != "float32":
        optimizers.append(
            CompactAdamW(
                *(rest, settings.states), lr=settings.lr, betas=settings.betas, eps=settings.eps
            )
        )
    elif rest:
        optimizers.append(
            AdamW(rest, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)
        )
    if by_muon:
        optimizers.append(Muon(by_muon, lr=settings.lr, momentum=settings.momentum, dtype=dtype))
    return Optimizers(*optimizers)


def _groups(
    parameters: Mapping[str, nn.Parameter], settings: OptimizerSettings
) -> Iterable[dict[str, Any]]:
    """Parameters that share an optimizer, a decay and a learning rate."""
    groups: dict[tuple[bool, float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in parameters.items():
        matrix = parameter.ndim >= 2
        by_muon = settings.kind == "muon" and name.startswith("layers.") and parameter.ndim == 2
        decay = settings.weight_decay if matrix else 0.0
        groups[by_muon, decay, settings.lr_ratios.get(part_of(name), 1.0)].append(parameter)
    for (by_muon, decay, ratio), members in groups.items():
        yield {
            "by_muon": by_muon,
            "params": members,
            "weight_decay": decay,
            "lr_ratio": ratio,
        }


class AdamW(torch.optim.AdamW):
    """torch's, which updates the parts that this rank holds as what they are: plain tensors.

    Given tensors in parts, it would work out where each result lies, for all of them together:
    seconds at the first step with some dozens, and more than in proportion with more.
    """

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        has_complex: bool = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        for tensors in lists:
            tensors[:] = map(local, tensors)
        return has_complex


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal: every direction of a matrix moves at the same rate.

    Jordan et al., "Muon" (2024); updates have the length of AdamW's (0.2 RMS; Liu et al.,
    arXiv:2502.16982), so one learning rate serves both. torch's own computes one matrix at a time
    and always in bfloat16, which a CPU without such products does 20 to 60 times slower than
    float32; here matrices of a shape are stacked, in the run's own dtype.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        dtype: torch.dtype,
    ) -> None:
        """Take matrices.

        Args:
            groups: `params`, (rows, columns) each, and their decoupled `weight_decay`.
            lr: Learning rate.
            momentum: In [0, 1), of Nesterov's kind.
            dtype: Of the products.
        """
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, matrices in by_shape.items():
                gradients = [local(p.grad) for p in matrices if p.grad is not None]
                momenta = [local(self._momentum(p)) for p in matrices]
                torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
                ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
                update = orthogonalise_parts(
                    [matrix.to(self._dtype) for matrix in ahead],
                    shape[0],
                    shard_group(matrices[0]),
                )
                length = 0.2 * max(shape) ** 0.5
                for matrix, change in zip(map(local, matrices), update, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(change.float(), alpha=-group["lr"] * length)

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        return momentum


def orthogonalise_parts(
    parts: Sequence[Tensor], rows: int, group: dist.ProcessGroup | None
) -> list[Tensor]:
    """`orthogonalise` for matrices of which each rank has some rows.

    Whole matrices are dealt out over the ranks, and their rows sent back.

    Args:
        parts: (at most ceil(rows / ranks), columns) each, one of every matrix; all of it without a
            group.
        rows: Of a whole matrix.
        group: The ranks that share them, which hold rows in the order of their numbers.
    """
    if group is None:
        return list(orthogonalise(torch.stack(list(parts))))
    ranks, columns = group.size(), parts[0].shape[1]
    most, each = -(-rows // ranks), -(-len(parts) // ranks)
    # Rows and matrices that are not there are zeros: they add nothing, and stay zeros.
    sent = parts[0].new_zeros(each * ranks, most, columns)
    for place, part in enumerate(parts):
        sent[place, : len(part)] = part
    dealt = _exchange(sent.view(ranks, each, most, columns), group)
    matrices = orthogonalise(dealt.transpose(0, 1).reshape(each, ranks * most, columns))
    turned = matrices.view(each, ranks, most, columns).transpose(0, 1).contiguous()
    returned = _exchange(turned, group).view(each * ranks, most, columns)
    return [returned[place, : len(part)] for place, part in enumerate(parts)]


def _exchange(blocks: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Send block i to rank i; block i of the result came from there."""
    received = torch.empty_like(blocks)
    dist.all_to_all_single(received, blocks, group=group)
    return received


def orthogonalise(matrices: Tensor) -> Tensor:
    """Bring all singular values of each matrix near 1 by five Newton-Schulz iterations.

    Args:
        matrices: (n, rows, columns), any floating dtype.

    Returns:
        Like `matrices`; singular values lie between about 0.7 and 1.2.
    """
    a, b, c = _COEFFICIENTS
    # Products of the shorter side are the cheaper ones.
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    # The norm bounds every singular value; a gradient of zeros stays one.
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def learning_rate(step: int, num_steps: int, settings: OptimizerSettings) -> float:
    """The rate of step number `step`, counted from 0: linear warm-up, then cosine or constant."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    done = (step - settings.warmup_steps) / max(num_steps - settings.warmup_steps, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return settings.lr * (settings.min_lr_ratio + (1 - settings.min_lr_ratio) * cosine)
