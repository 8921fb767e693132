"""Section attention: one layer's attention by each way there is, at full size.

Packed samples by torch's scaled-dot-product kernels, by flex attention and by flash attention's for
rows of any length, and an image on three caches with and without a mask. Set against visible pairs
only, so that what a kernel computes in vain shows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention

from benchmarks.parts import models, packs
from benchmarks.parts.harness import Recorder, Setup, peak_gib, reset_peak, time_s
from staged.engine.cache import PagedCache
from staged.engine.context import ChunkAttention, Context
from staged.model.attention import Attend, PackedAttention, attend_rows
from staged.model.config import TransformerConfig
from staged.model.flex import FlexAttention
from staged.model.layout import Grids, Layout, lay_out
from staged.model.varlen import VarlenAttention, installed_kernel
from staged.model.work import attention_flops, visible_pairs
from staged.sequence import noised_copy

_LARGEST_DIFFERENCE = 0.03  # of bfloat16 results, over the largest magnitude


def run(setup: Setup, record: Recorder) -> None:
    """Measure packs, then an image on caches.

    Two ways that disagree by more than rounding count as a failure.
    """
    config = replace(models.full_config(setup).transformer, num_layers=1)
    _measure_image(config, setup, record)
    for num_tokens in (200,) if setup.tiny else (8_192, 33_000):
        _measure_pack(packs.pack(setup, num_tokens), config, num_tokens, setup, record)


def _measure_pack(
    layout: Layout, config: TransformerConfig, num_tokens: int, setup: Setup, record: Recorder
) -> None:
    flops = attention_flops(config, visible_pairs(layout))
    # Compiled where that is what flex is for; on a CPU it only shows that the section runs.
    kernel = torch.compile(flex_attention, dynamic=False) if setup.on_cuda else flex_attention
    ways: dict[str, Callable[[], Attend]] = {
        "sdpa": partial(PackedAttention, layout),
        "flex": partial(FlexAttention, layout, kernel),
    }
    if setup.on_cuda:
        ways["varlen"] = lambda: VarlenAttention(layout, installed_kernel())
    tensors = _random(config, layout.num_tokens, setup)
    expected = None
    for name, plan in ways.items():
        with record.attempt(f"{name}_{num_tokens}"):
            plan_ms = 1e3 * time_s(plan, setup, warmup=1, repeats=3)
            attend = plan()
            reset_peak(setup)
            with torch.no_grad():
                output = attend(0, *tensors)
                seconds = time_s(partial(attend, 0, *tensors), setup)
            _add(record, f"{name}_forward_{num_tokens}", seconds, flops, setup, plan_ms)
            expected = output if expected is None else expected
            _require_equal(f"{name} and sdpa", output, expected)
            if setup.on_cuda:  # flex attention has no backward pass on a CPU
                reset_peak(setup)
                seconds = time_s(_forward_backward(attend, tensors), setup)
                _add(record, f"{name}_forward_backward_{num_tokens}", seconds, 3 * flops, setup)


def _measure_image(config: TransformerConfig, setup: Setup, record: Recorder) -> None:
    """An image being drawn on the three contexts that guidance needs: a call each, or a mask."""
    side, lengths = (4, [30, 20, 10]) if setup.tiny else (64, [6_000, 5_000, 2_000])
    image = noised_copy(Grids(latent=(side, side), vision=(0, 0)))
    layout = lay_out([[image]] * len(lengths), packs.SPECIAL).to(setup.device)
    tokens = side * side + 2
    flops = attention_flops(config, sum(tokens * (length + tokens) for length in lengths))
    contexts = _contexts(config, lengths, setup)
    plain = ChunkAttention(contexts, layout)
    tensors = _random(config, layout.num_tokens, setup)
    ways: list[tuple[str, Attend, Any]] = [
        ("image", plain, None),
        ("image_masked", _Masked(contexts, layout), None),
    ]
    if setup.on_cuda:
        ways += [
            ("image_flash", plain, SDPBackend.FLASH_ATTENTION),
            ("image_cudnn", plain, SDPBackend.CUDNN_ATTENTION),
        ]
    expected = None
    for name, attend, kernel in ways:
        forced = nullcontext() if kernel is None else sdpa_kernel([kernel])
        with record.attempt(name), torch.inference_mode(), forced:
            reset_peak(setup)
            output = attend(0, *tensors)
            seconds = time_s(partial(attend, 0, *tensors), setup)
            _add(record, name, seconds, flops, setup)
            expected = output if expected is None else expected
            _require_equal(f"{name} and image", output, expected)


class _Masked:
    """The alternative: contexts side by side in one call, padded to the longest."""

    def __init__(self, contexts: list[Context], layout: Layout) -> None:
        device, self._order = layout.position_ids.device, layout.expert_order()
        self._rows = layout.expert_rows().view(len(contexts), -1)
        self._lengths = [context.num_tokens for context in contexts]
        tokens = self._rows.shape[1]
        self._keys, self._values = (
            torch.stack(
                [F.pad(x, (0, 0, 0, 0, 0, max(self._lengths) + tokens - len(x))) for x in caches]
            )
            for caches in zip(*((c.keys[0], c.values[0]) for c in contexts), strict=True)
        )
        used = torch.tensor(self._lengths, device=device) + tokens
        self._mask = torch.arange(self._keys.shape[1], device=device) < used[:, None, None, None]
        self._mask = self._mask.expand(-1, 1, tokens, -1)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `staged.model.attention.Attend`."""
        for row, length in enumerate(self._lengths):
            there = slice(length, length + self._rows.shape[1])
            self._keys[row, there], self._values[row, there] = (
                key[self._rows[row]],
                value[self._rows[row]],
            )
        q, k, v = (x.transpose(1, 2) for x in (query[self._rows], self._keys, self._values))
        out = attend_rows(q, k, v, self._mask).transpose(1, 2).flatten(0, 1)
        return out.index_select(0, self._order)


def _contexts(config: TransformerConfig, lengths: list[int], setup: Setup) -> list[Context]:
    one_layer, room = replace(config, num_layers=1), sum(lengths) + 512 * len(lengths)
    cache = PagedCache(one_layer, room, dtype=setup.dtype, device=setup.device)
    contexts = list[Context]()
    for length in lengths:
        _, keys, values = _random(config, length, setup)
        contexts.append(context := Context(cache))
        context.grow(length)
        context.position, sequence = length, context.sequence()
        assert sequence is not None
        sequence.write(0, sequence.slots(0, length), keys, values)
    return contexts


def _random(config: TransformerConfig, num_tokens: int, setup: Setup) -> list[Tensor]:
    """Queries, keys and values."""
    return [
        torch.randn(num_tokens, heads, config.head_dim, device=setup.device).to(setup.dtype)
        for heads in (config.num_heads, config.num_kv_heads, config.num_kv_heads)
    ]


def _forward_backward(attend: Attend, tensors: list[Tensor]) -> Callable[[], object]:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    towards = torch.randn_like(leaves[0])
    return lambda: torch.autograd.grad(attend(0, *leaves), leaves, towards)


def _add(
    record: Recorder, name: str, seconds: float, flops: int, setup: Setup, plan_ms: float = 0.0
) -> None:
    facts = {"tflop_per_s": flops / seconds / 1e12, "peak_gib": peak_gib(setup)}
    if plan_ms:
        facts["plan_ms"] = plan_ms
    record.add(name, 1e3 * seconds, "ms", **facts)


def _require_equal(what: str, found: Tensor, expected: Tensor) -> None:
    difference = (found.float() - expected.float()).abs().max() / expected.float().abs().max()
    if not difference < _LARGEST_DIFFERENCE:
        raise ArithmeticError(f"{what} differ by {float(difference):.2g} of the largest magnitude")
