"""LoRA: a product of two thin matrices beside a weight that stays as it is.

    y = W x + b + scale * B (A x)         Hu et al., arXiv:2106.09685

A begins at random and B at zero, so training begins at the model as it was. Both are parameters
like any other: a layer with them is built on the meta device, cut among ranks, compiled and made
again as one without.

Letters: r rank, n rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staged.model.config import TransformerConfig
from staged.model.lora_targets import Target
from staged.model.quantized import multiply, refuse_quantized

__all__ = [
    "LoraLinear",
    "LowRank",
    "add_lora",
    "first_lora_a",
    "is_lora",
    "lora_layers",
    "merge_lora",
    "merged",
    "modules_of",
]


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """How a weight is added to.

    Attributes:
        rank: r, the inner size of the product.
        scale: Factor of the product; PEFT's `lora_alpha` over its `r`.
    """

    rank: int
    scale: float

    def __post_init__(self) -> None:
        """Check the rank.

        Raises:
            ValueError: It is below 1.
        """
        if self.rank < 1:
            raise ValueError(f"a LoRA of rank {self.rank} adds nothing; give 1 or more")


class LoraLinear(nn.Linear):
    """A linear layer with a low-rank addition; `weight` and `bias` keep their names.

    Attributes:
        lora_a: (r, inputs).
        lora_b: (outputs, r).
        scale: See `LowRank`.
        weight_scale: Of a weight that was rounded; see `staged.model.quantized`.
    """

    lora_a: nn.Parameter
    lora_b: nn.Parameter
    scale: float
    weight_scale: Tensor | None

    @classmethod
    def around(cls, layer: nn.Linear, low_rank: LowRank, dtype: torch.dtype) -> Self:
        """Take over a layer's own parameters, and make room for the addition beside them.

        Args:
            layer: Is not to be used any more.
            low_rank: Of the addition.
            dtype: Of both matrices, which are zeros: nothing is added yet.
        """
        with torch.device("meta"):
            made = cls(layer.in_features, layer.out_features, bias=layer.bias is not None)
        made.weight, made.bias = layer.weight, layer.bias
        made.register_buffer("weight_scale", getattr(layer, "weight_scale", None))
        with layer.weight.device:
            a = torch.zeros(low_rank.rank, layer.in_features, dtype=dtype)
            b = torch.zeros(layer.out_features, low_rank.rank, dtype=dtype)
        made.lora_a, made.lora_b = nn.Parameter(a), nn.Parameter(b)
        made.scale = low_rank.scale
        return made

    @property
    def low_rank(self) -> LowRank:
        """What is added."""
        return LowRank(rank=len(self.lora_a), scale=self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs), in the dtype of `x`."""
        # Scaled where it is thin. Masters in float32 are narrowed here unless they were before.
        thin = F.linear(x, self.lora_a.to(x.dtype)) * self.scale
        if self.weight_scale is None:
            whole = F.linear(x, self.weight, self.bias)
        else:
            whole = multiply(x, self.weight, self.weight_scale, self.bias)
        return whole + F.linear(thin, self.lora_b.to(x.dtype))


def modules_of(
    config: TransformerConfig, expert: str, targets: tuple[Target, ...] = get_args(Target)
) -> list[str]:
    """Names of the decoder's linear layers of one expert.

    Args:
        config: Of the decoder.
        expert: `und` or `gen`.
        targets: Which of a layer's.
    """
    return [
        f"layers.{layer}.{expert}.{target}"
        for layer in range(config.num_layers)
        for target in targets
    ]


def add_lora(
    model: nn.Module,
    low_ranks: Mapping[str, LowRank],
    *,
    dtype: torch.dtype = torch.float32,
    seed: int | None = None,
) -> None:
    """Put low-rank additions beside weights.

    Args:
        model: Its linear layers of these names are replaced; parameters stay the same objects.
        low_ranks: By name of the layer.
        dtype: Of the additions; to be trained, float32.
        seed: Draws each A; None leaves all at zero, to be filled.

    Raises:
        ValueError: The model has no such linear layer, or it has an addition already.
    """
    for name, low_rank in low_ranks.items():
        owner, _, leaf = name.rpartition(".")
        try:
            parent = model.get_submodule(owner)
            layer = parent.get_submodule(leaf)
        except AttributeError as error:
            raise ValueError(f"the model has no layer {name} to add a LoRA to") from error
        if not isinstance(layer, nn.Linear) or isinstance(layer, LoraLinear):
            raise ValueError(
                f"{name} is a {type(layer).__name__}; a LoRA is added to plain linear layers"
            )
        made = LoraLinear.around(layer, low_rank, dtype).train(layer.training)
        if seed is not None and not made.lora_a.is_meta:
            with torch.no_grad():
                made.lora_a.copy_(first_lora_a(seed, f"{name}.lora_a", tuple(made.lora_a.shape)))
        setattr(parent, leaf, made)


def first_lora_a(seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    """Where an A begins: uniform within 1/sqrt(inputs), as PEFT's.

    A function of seed and name alone, so that any process can draw any of them.

    Args:
        seed: Of the run.
        name: Of the parameter.
        shape: (r, inputs).

    Returns:
        `shape` float32 on the CPU.
    """
    key = hashlib.sha256(f"{seed} {name}".encode()).digest()[:8]
    generator = torch.Generator().manual_seed(int.from_bytes(key, "big") >> 1)
    bound = float(shape[-1] ** -0.5)
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """The layers with an addition, by name."""
    return {n: layer for n, layer in model.named_modules() if isinstance(layer, LoraLinear)}


def is_lora(name: str) -> bool:
    """Whether a parameter of this name is part of an addition."""
    return name.endswith((".lora_a", ".lora_b"))


@torch.no_grad()
def merged(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """The weight that does what weight and addition do.

    Args:
        weight: (outputs, inputs).
        a: (r, inputs).
        b: (outputs, r).
        scale: Of their product.

    Returns:
        Like `weight`; computed in float32, whatever that is.
    """
    summed: Tensor = (b.float() @ a.float()).mul_(scale).add_(weight.float())
    return summed.to(weight.dtype)


@torch.no_grad()
def merge_lora(model: nn.Module) -> None:
    """Add every addition to its weight for good; plain linear layers remain.

    Raises:
        ValueError: The weights were rounded, and would have to be once more.
    """
    refuse_quantized(model, "merged with a LoRA")
    for name, layer in lora_layers(model).items():
        owner, _, leaf = name.rpartition(".")
        with torch.device("meta"):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        plain.weight, plain.bias = layer.weight, layer.bias
        plain.weight.copy_(merged(layer.weight, layer.lora_a, layer.lora_b, layer.scale))
        setattr(model.get_submodule(owner), leaf, plain.train(layer.training))
