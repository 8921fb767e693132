"""What a step keeps and passes through beside weights, counted without computing anything.

The run's own layers run forward and backward on the meta device, where tensors have sizes and no
memory, and every tensor is counted while it is there. Two layers keep twice what one keeps, so
one and two of them tell of any number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from staged.model.config import TransformerConfig
from staged.model.cross_entropy import WordHead
from staged.model.recompute import Recompute, set_recompute
from staged.model.transformer import Layer, rope_tables
from train.live_bytes import LiveBytes

_TOKENS = 4096  # enough that activations, and not a layer's gradients, make the peak


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Bytes that there are beside weights and what gradients are added up in.

    Attributes:
        kept: A token, by each layer, from its forward to its backward pass.
        passing: A token, beside that, while a layer's backward pass runs.
        of_weights: A layer's gradients on their way, whatever the number of tokens.
    """

    kept: float
    passing: float
    of_weights: int

    def of_pack(self, config: TransformerConfig, num_tokens: int) -> int:
        """Most bytes in the decoder over a pack."""
        return self.of_weights + int(num_tokens * (config.num_layers * self.kept + self.passing))


@lru_cache
def count_activations(
    config: TransformerConfig, dtype: torch.dtype, recompute: Recompute
) -> Activations:
    """Count what the decoder's layers keep, with fused attention, where every weight is trained.

    Args:
        config: Of the decoder.
        dtype: Of forward and backward.
        recompute: What they keep and what they make again.
    """

    def peak(number: int, tokens: int) -> int:
        return _peak(config, dtype, recompute, number, tokens)

    kept = (peak(2, _TOKENS) - peak(1, _TOKENS)) / _TOKENS
    each = (peak(1, 2 * _TOKENS) - peak(1, _TOKENS)) / _TOKENS
    return Activations(
        kept=kept, passing=each - kept, of_weights=round(peak(1, _TOKENS) - _TOKENS * each)
    )


def _peak(
    config: TransformerConfig, dtype: torch.dtype, recompute: Recompute, number: int, tokens: int
) -> int:
    with torch.device("meta"):
        layers = nn.ModuleList(Layer(config, index) for index in range(number)).to(dtype)
        set_recompute(layers, recompute)
        for parameter in layers.parameters():
            parameter.grad = torch.empty_like(parameter)
        x = torch.empty(tokens, config.hidden_size, dtype=dtype, requires_grad=True)
        places = torch.empty(tokens, dtype=torch.int64)
        rope = rope_tables(places, config.head_dim, config.rope_theta, dtype)
        gradients = [p.grad for p in layers.parameters() if p.grad is not None]
        with LiveBytes([*layers.parameters(), *gradients, *rope, x]) as counted:
            before = counted.now
            hidden = x
            for layer in layers:
                hidden = layer(hidden, tokens // 2, rope, _fused)
            hidden.backward(torch.empty_like(hidden))
    return int(counted.peak - before)


def _fused(_: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention as fused kernels keep it: its operands, its output, one number a query."""
    parts = [part.transpose(0, 1)[None] for part in (query, key, value)]
    attended: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(*parts)[0]
    return attended[0].transpose(0, 1)


@lru_cache
def head_bytes(
    config: TransformerConfig, dtype: torch.dtype, num_labels: int, max_logits_mib: int
) -> int:
    """Most bytes of the head's cross entropy, forward and backward, gradient of its weight too."""
    with torch.device("meta"):
        head = WordHead(config.hidden_size, config.vocab_size).to(dtype)
        hidden = torch.empty(num_labels, config.hidden_size, dtype=dtype, requires_grad=True)
        labels = torch.empty(num_labels, dtype=torch.int64)
        with LiveBytes([head.weight, hidden]) as counted:
            before = counted.now
            head(hidden, labels, max_logits_mib).sum().backward()
    return int(counted.peak - before)
