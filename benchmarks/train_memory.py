"""Most memory of a training step, by what its layers keep and how many logits stand at a time.

    python benchmarks/train_memory.py

Eight layers of BAGEL's proportions at a width of 256, with 32,000 words, and a pack of two rounds'
trajectories. Bytes are those of all tensors that there are at once beside weights and gradients,
counted as they are made and freed: exact, alike on every machine, and without what kernels use
inside of themselves. One JSON line a way, with the share of the first one's peak, and its products
of matrices over the first one's. Exit code 0, or 1 where the losses of two ways differ by more than
rounding.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # from a bare checkout
from benchmarks.parts import models, packs
from benchmarks.parts.harness import Setup
from staged.model.attention import PackedAttention
from staged.model.bagel import Bagel, Inputs
from staged.model.config import TransformerConfig, VisionConfig
from staged.model.layout import Layout
from staged.model.loss import token_losses
from staged.model.recompute import set_recompute
from train.live_bytes import LiveBytes

WAYS: tuple[tuple[Literal["none", "selective", "full"], int], ...] = (
    ("none", 1024),
    ("none", 4),
    ("selective", 1024),
    ("selective", 4),
    ("full", 1024),
    ("full", 4),
)


def main() -> int:
    """Measure every way."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    setup = Setup(device=torch.device("cpu"), tiny=True)
    config = replace(
        models.full_config(setup),
        transformer=TransformerConfig(
            hidden_size=256,
            intermediate_size=1352,
            num_layers=8,
            num_heads=4,
            num_kv_heads=1,
            head_dim=64,
            vocab_size=32_000,
        ),
        vision=VisionConfig(
            hidden_size=96, intermediate_size=384, num_layers=4, num_heads=3, positions_per_side=8
        ),
    )
    model = models.build(config, setup, torch.float32).train()
    layout = packs.pack(setup, 1_500)
    inputs, target = packs.inputs(layout, config, torch.float32)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    first: tuple[float, int, int] | None = None
    for recompute, mib in WAYS:
        set_recompute(model, recompute)
        loss, peak, flops = _step(model, layout, inputs, target, mib)
        first = first or (loss, peak, flops)
        print(
            json.dumps(
                {
                    "activation_checkpointing": recompute,
                    "max_logits_mib": mib,
                    "tokens": layout.num_tokens,
                    "labels": len(layout.labels),
                    "peak_mib": round(peak / 2**20, 1),
                    "share": round(peak / first[1], 3),
                    "work": round(flops / first[2], 3),
                }
            ),
            flush=True,
        )
        if abs(loss - first[0]) > 1e-4 * abs(first[0]):
            print(f"the loss is {loss}, not {first[0]}", file=sys.stderr)
            return 1
    return 0


def _step(
    model: Bagel, layout: Layout, inputs: Inputs, target: torch.Tensor, mib: int
) -> tuple[float, int, int]:
    """Loss, most bytes beside weights and gradients, and FLOP."""
    kept = [tensor for p in model.parameters() for tensor in (p, p.grad) if tensor is not None]
    with LiveBytes([*kept, *model.buffers()]) as counted:
        before = counted.now
        loss = _loss(model, layout, inputs, target, mib)
        loss.backward()
    with FlopCounterMode(display=False) as work:
        _loss(model, layout, inputs, target, mib).backward()
    return loss.item(), counted.peak - before, work.get_total_flops()


def _loss(
    model: Bagel, layout: Layout, inputs: Inputs, target: torch.Tensor, mib: int
) -> torch.Tensor:
    hidden = model(layout, inputs, PackedAttention(layout))
    losses = token_losses(model, hidden, layout, target, max_logits_mib=mib)
    return losses.ce_sum(layout) + losses.mse_sum()


if __name__ == "__main__":
    sys.exit(main())
