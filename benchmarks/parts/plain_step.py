"""A training step as it is commonly written for a mixture of two experts: the named alternative.

Tokens stay in the pack's order. Every norm and projection takes each expert's tokens out and puts
them back (gather and scatter), attention runs over the whole pack under a dense mask, and the head
gives logits of every text token, most of which no label asks for. Weights are those of `Bagel`, and
so are losses and gradients, to rounding.

Letters: T tokens, C hidden size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from staged.model.attention import additive
from staged.model.bagel import Bagel, Inputs
from staged.model.layout import Layout
from staged.model.transformer import Expert, rope_tables, rotate


def dense_mask(layout: Layout, dtype: torch.dtype) -> Tensor:
    """(T, T) of what is added to scores: a block a sample, nothing between samples."""
    blocks = [layout.mask(sample) for sample in range(len(layout.sample_lens))]
    return additive(torch.block_diag(*(block.float() for block in blocks)).bool(), dtype)


def loss(model: Bagel, layout: Layout, inputs: Inputs, target: Tensor, mask: Tensor) -> Tensor:
    """Sum of weighted cross entropies and squared errors, as `TokenLosses` sums them."""
    order = layout.expert_order()
    und, gen = order[: layout.num_und], order[layout.num_und :]
    x = torch.zeros(layout.num_tokens, model.config.transformer.hidden_size)
    x = x.index_copy(0, order, model.embed(layout, inputs))
    config = model.config.transformer
    rope = rope_tables(layout.position_ids, config.head_dim, config.rope_theta, x.dtype)

    # `index_select`, whose backward pass is many times as fast on a CPU as that of `x[places]`.
    def routed(part: Callable[[Expert, Tensor], Tensor], layer: object, x: Tensor) -> Tensor:
        outputs = [
            part(getattr(layer, name), x.index_select(0, places))
            for name, places in (("und", und), ("gen", gen))
        ]
        scattered = outputs[0].new_zeros(len(x), *outputs[0].shape[1:])
        both: Tensor = scattered.index_copy(0, und, outputs[0]).index_copy(0, gen, outputs[1])
        return both

    def heads(projected: Tensor) -> Tensor:
        split: Tensor = projected.unflatten(-1, (-1, config.head_dim))
        return split

    for layer in model.layers:
        normed = routed(lambda expert, x: expert.attn_norm(x), layer, x)
        query = heads(routed(lambda expert, x: expert.q_proj(x), layer, normed))
        key = heads(routed(lambda expert, x: expert.k_proj(x), layer, normed))
        value = heads(routed(lambda expert, x: expert.v_proj(x), layer, normed))
        query = rotate(routed(lambda expert, x: expert.q_norm(x), layer, query), rope)
        key = rotate(routed(lambda expert, x: expert.k_norm(x), layer, key), rope)
        q, k, v = (part.transpose(0, 1)[None] for part in (query, key, value))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        attended = attended[0].transpose(0, 1).flatten(-2)
        x = x + routed(lambda expert, x: expert.o_proj(x), layer, attended)
        normed = routed(lambda expert, x: expert.mlp_norm(x), layer, x)
        x = x + routed(_mlp, layer, normed)
    x = routed(lambda norm, x: norm(x), model.final_norm, x)
    labels = torch.full((layout.num_tokens,), -100)
    labels[layout.ce_index] = layout.labels
    weights = torch.zeros(layout.num_tokens)
    weights[layout.ce_index] = layout.ce_weights
    text = layout.text_index
    logits = model.lm_head(x.index_select(0, text)).float()
    ce = F.cross_entropy(logits, labels[text], reduction="none", ignore_index=-100)
    velocity = model.latent_out(x.index_select(0, gen)).float()[layout.velocity_rows]
    mse = (velocity - target[layout.velocity_rows].float()) ** 2
    total: Tensor = (ce * weights[text]).sum() + mse.mean(dim=-1).sum()
    return total


def _mlp(expert: Expert, x: Tensor) -> Tensor:
    out: Tensor = expert.down_proj(F.silu(expert.gate_proj(x)) * expert.up_proj(x))
    return out
