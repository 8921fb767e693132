"""Activation checkpointing: what a layer keeps for its backward pass, and what it makes again."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

Recompute = Literal["none", "selective", "full"]
"""`none` keeps everything that the backward pass reads; `selective` keeps what matrix products and
fused attention gave, and makes norms, rotations, activations and sums again; `full` keeps the input
of each layer and runs its forward pass twice, a third more work."""

_KEPT = re.compile(r"mm|addmm|_scaled_dot_product\w+|\w*flash_att\w+|flex_attention|_varlen_attn")
"""Operations that `selective` runs once. Not `bmm`: scores of attention that are written out are
larger than all else."""


class RecomputingLayer(nn.Module):
    """A layer that can be told what to keep. `forward` hands itself to `recomputing`."""

    recompute: Recompute = "none"
    compiled: bool = False
    """Whether the compiler fused this layer's parts. It then keeps products and makes pointwise
    operations again by itself, and `selective` has nothing to add."""

    def recomputing(self, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """Run a method of this layer, keeping what `recompute` says.

        From within the layer's own call: sharded training gathers its weights around that, in the
        backward pass too.

        Args:
            function: Draws no random numbers; they are not kept.
            arguments: Its own.
        """
        selective = self.recompute == "selective"
        kept = self.recompute == "none" or (selective and self.compiled)
        if kept or not torch.is_grad_enabled():
            return function(*arguments)
        contexts: dict[str, Any] = {}
        if selective:
            contexts["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
        result: Tensor = checkpoint(
            self._with_weights_of_now(function),
            *arguments,
            use_reentrant=False,
            preserve_rng_state=False,
            **contexts,
        )
        return result

    def _with_weights_of_now(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Bind a method to the tensors that stand for the weights, if they are not the weights.

        `functional_call` puts others (a narrow copy) in their place for the forward pass alone;
        made again with the weights themselves, activations would be others.
        """
        weights = dict(self.named_parameters())
        if all(isinstance(weight, nn.Parameter) for weight in weights.values()):
            return function
        method = _Method(self, function)
        named: dict[str, Tensor] = {f"owner.{name}": weight for name, weight in weights.items()}

        def bound(*arguments: Any) -> Tensor:
            result: Tensor = functional_call(method, named, arguments)
            return result

        return bound


def set_recompute(module: nn.Module, recompute: Recompute) -> None:
    """Tell every layer of a model what to keep."""
    for layer in module.modules():
        if isinstance(layer, RecomputingLayer):
            layer.recompute = recompute


class _Method(nn.Module):
    """A method of a module as the forward pass of one."""

    def __init__(self, owner: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.owner, self.function = owner, function

    def forward(self, *arguments: Any) -> Tensor:
        return self.function(*arguments)


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    name = operation.name().partition("::")[2] or operation.name()
    if _KEPT.fullmatch(name.partition(".")[0]):
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
