"""Section layers: forward and backward of some full-size layers over long packs.

Four layers with heads, tower and losses, as a fine-tune runs them; bound by arithmetic. Tokens a
second of the whole decoder follow from the layers' share of the work, and are given as such.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.parts import models, packs
from benchmarks.parts.harness import Recorder, Setup, peak_gib, reset_peak, time_s
from staged.model.attention import PackedAttention
from staged.model.bagel import Bagel, Inputs
from staged.model.config import BagelConfig, TransformerConfig
from staged.model.layout import Layout
from staged.model.loss import token_losses
from staged.model.work import train_flops

_NUM_LAYERS = 4


def run(setup: Setup, record: Recorder) -> None:
    """Measure the model as it is."""
    measure(setup, record)


def measure(setup: Setup, record: Recorder, *, compiled: bool = False) -> None:
    """Measure packs of two lengths; one that does not fit in memory is reported as such."""
    full = models.full_config(setup)
    config = replace(full, transformer=_shallow(full))
    model = models.build(config, setup, setup.dtype).train()
    if compiled:
        model.compile_experts()
    for num_tokens in (200, 400) if setup.tiny else (8_192, 33_000):
        layout = packs.pack(setup, num_tokens)
        inputs, target = packs.inputs(layout, config, setup.dtype)

        reset_peak(setup)
        name = f"pack_{num_tokens}"
        try:
            seconds = time_s(partial(_step, model, layout, inputs, target), setup, repeats=4)
        except torch.OutOfMemoryError as error:
            record.note(name, skipped=str(error)[:200])
            continue
        flops = train_flops(config, layout)
        record.add(
            name,
            layout.num_tokens / seconds,
            "tokens/s",
            ms=1e3 * seconds,
            tokens=layout.num_tokens,
            samples=len(layout.sample_lens),
            layers=config.transformer.num_layers,
            tflop=flops / 1e12,
            tflop_per_s=flops / seconds / 1e12,
            tokens_per_s_of_all_layers=_scaled(full, config, layout, seconds),
            peak_gib=peak_gib(setup),
        )


def _step(model: Bagel, layout: Layout, inputs: Inputs, target: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    losses = token_losses(model, model(layout, inputs, PackedAttention(layout)), layout, target)
    (losses.ce_sum(layout) + losses.mse_sum()).backward()


def _shallow(config: BagelConfig) -> TransformerConfig:
    decoder = config.transformer
    return replace(decoder, num_layers=min(_NUM_LAYERS, decoder.num_layers))


def _scaled(full: BagelConfig, config: BagelConfig, layout: Layout, seconds: float) -> float:
    """Tokens a second of the full depth at the same rate of arithmetic."""
    return layout.num_tokens / (seconds * train_flops(full, layout) / train_flops(config, layout))
