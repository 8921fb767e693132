"""The decoder: Qwen2 with QK-norm, two experts a layer and one attention for both.

Tokens stand in expert order, und before gen (see `staged.model.layout`), so each expert works on
one contiguous slice and nothing is gathered or scattered outside attention.

Letters: T tokens, C hidden size, H query heads, K key/value heads, D head dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staged.model.attention import Attend
from staged.model.config import TransformerConfig
from staged.model.recompute import RecomputingLayer

Rope = tuple[Tensor, Tensor]
"""Cosines and sines, each (T, 1, D)."""

MAX_MLP_TOKENS = 4096
"""Tokens that pass an MLP together where no gradients are wanted: those of an image of BAGEL-7B's
largest size, which fill a GPU. An MLP is five times as wide as the stream, and what is read or
guided at once is several images."""


def rope_tables(position_ids: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Rope:
    """Rotary tables for given positions (Su et al., arXiv:2104.09864; rotate-half pairing).

    Angles are float32 throughout: in bf16 they are off by more than a radian at position 1000.

    Args:
        position_ids: (T,) int64.
        head_dim: D, even.
        theta: Base of the frequencies.
        dtype: Of the result.

    Returns:
        Cosines and sines, (T, 1, D).
    """
    exponent = torch.arange(0, head_dim, 2, device=position_ids.device).float() / head_dim
    angles = position_ids.float()[:, None] * (theta**-exponent)
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Apply rope to (T, heads, D)."""
    cos, sin = rope
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Expert(nn.Module):
    """One expert's share of one layer: everything but the attention itself."""

    def __init__(self, config: TransformerConfig) -> None:
        """Make the weights (on the current default device, possibly meta)."""
        super().__init__()
        width, heads = config.hidden_size, config.num_heads * config.head_dim
        kv_heads = config.num_kv_heads * config.head_dim
        self.head_dim = config.head_dim
        self.attn_norm = nn.RMSNorm(width, eps=config.rms_norm_eps)
        self.q_proj = nn.Linear(width, heads)
        self.k_proj = nn.Linear(width, kv_heads)
        self.v_proj = nn.Linear(width, kv_heads)
        self.o_proj = nn.Linear(heads, width, bias=False)
        self.q_norm = nn.RMSNorm(config.head_dim, eps=config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(config.head_dim, eps=config.rms_norm_eps)
        self.mlp_norm = nn.RMSNorm(width, eps=config.rms_norm_eps)
        self.gate_proj = nn.Linear(width, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(width, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, width, bias=False)

    def compile_parts(self) -> None:
        """Fuse `project` and `finish`; numbers of tokens stay free to vary."""
        # Not attention: its groups change from pack to pack, and each would be compiled anew.
        for name in ("project", "finish"):
            setattr(self, name, torch.compile(getattr(self, name), dynamic=True))

    def project(self, x: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (T, H, D), keys and values (T, K, D) of (T, C) hidden states."""
        normed = self.attn_norm(x)
        query, key, value = (
            projection(normed).unflatten(-1, (-1, self.head_dim))
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        # Norm before rope, as the reference: its weights differ within a pair that rope turns.
        return rotate(self.q_norm(query), rope), rotate(self.k_norm(key), rope), value

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add the attention's output (T, H, D) and the MLP to (T, C) hidden states."""
        x = x + self.o_proj(attended.flatten(-2))
        normed = self.mlp_norm(x)
        added: Tensor = self.down_proj(F.silu(self.gate_proj(normed)) * self.up_proj(normed))
        return x + added


class Layer(RecomputingLayer):
    """One decoder layer: the und and the gen expert around shared attention."""

    def __init__(self, config: TransformerConfig, index: int) -> None:
        """Make layer number `index`."""
        super().__init__()
        self.index = index
        self.und = Expert(config)
        self.gen = Expert(config)

    def forward(self, x: Tensor, num_und: int, rope: Rope, attend: Attend) -> Tensor:
        """One layer over (T, C) hidden states in expert order.

        With gradients both experts run, on empty slices too: sharded training needs every
        parameter to take part in every step on every rank. Without, as when a token of text is
        written, an expert with nothing to do would take half of the time on a CPU.
        """
        return self.recomputing(self._run, x, num_und, rope, attend)

    def _run(self, x: Tensor, num_und: int, rope: Rope, attend: Attend) -> Tensor:
        if num_und in (0, len(x)) and not torch.is_grad_enabled():
            expert = self.und if num_und else self.gen
            attended = attend(self.index, *expert.project(x, rope))
            return torch.cat(_in_pieces(expert.finish, x, attended))
        # Not slices: the gradient of each would be a tensor of zeros as long as all tokens.
        sizes = [num_und, len(x) - num_und]
        of_und, of_gen = x.split(sizes)
        (und_cos, gen_cos), (und_sin, gen_sin) = (table.split(sizes) for table in rope)
        und = self.und.project(of_und, (und_cos, und_sin))
        gen = self.gen.project(of_gen, (gen_cos, gen_sin))
        query, key, value = (torch.cat(pair) for pair in zip(und, gen, strict=True))
        und_attended, gen_attended = attend(self.index, query, key, value).split(sizes)
        return torch.cat(
            [
                *_in_pieces(self.und.finish, of_und, und_attended),
                *_in_pieces(self.gen.finish, of_gen, gen_attended),
            ]
        )


def _in_pieces(
    finish: Callable[[Tensor, Tensor], Tensor], x: Tensor, attended: Tensor
) -> list[Tensor]:
    """`Expert.finish` over pieces of like length, so that what is in an MLP takes bounded room."""
    # With gradients everything is kept for the way back, and pieces would save nothing.
    number = 1 if torch.is_grad_enabled() else max(math.ceil(len(x) / MAX_MLP_TOKENS), 1)
    pieces = zip(x.tensor_split(number), attended.tensor_split(number), strict=True)
    return [finish(*piece) for piece in pieces]


class FinalNorm(nn.Module):
    """The last norm of each expert."""

    def __init__(self, config: TransformerConfig) -> None:
        """Make both norms."""
        super().__init__()
        self.und = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.gen = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
