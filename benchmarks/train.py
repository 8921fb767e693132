"""The trainer's step against one as it is commonly written, in one process, in turns.

    python benchmarks/train.py --out benchmarks/results/train.json

A model of 100 million weights of BAGEL's proportions on the CPU, in float32: a pack of
trajectories of two rounds, forward and backward; no optimizer, which both would share. The
alternative (`parts/plain_step.py`) routes tokens by gather and scatter, attends over the pack under
a dense mask, and makes logits of all text. One JSON line a round, then one with medians and their
ratio. On one thread seconds are the processor's, so that other work on the machine counts little;
on more (`--threads`) they are the clock's, for a machine that does nothing else. Exit code 0; 1
where losses or gradients differ by more than rounding, or the ratio is below `--at-least`.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # from a bare checkout
from benchmarks.parts import models, packs, plain_step
from benchmarks.parts.harness import Setup
from staged.model.attention import PackedAttention
from staged.model.bagel import Bagel, Inputs
from staged.model.config import TransformerConfig, VisionConfig
from staged.model.layout import Grids, Layout
from staged.model.loss import token_losses

_SETUP = Setup(device=torch.device("cpu"), tiny=True)


def main(argv: list[str] | None = None) -> int:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--tokens", type=int, default=2048, help="of the pack, at most")
    add("--rounds", type=int, default=5, help="of both steps, in turns")
    add(
        "--compile",
        action="store_true",
        help="ours with its pointwise parts fused, as that setting",
    )
    add("--threads", type=int, default=1, help="of torch")
    add("--tiny", action="store_true", help="a model of no size: tries the script itself")
    add("--at-least", type=float, default=0.0, metavar="RATIO", help="fail below this ratio")
    add("--out", type=Path, help="one JSON with the medians and the machine")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    model = _model(options.tiny)
    if options.compile:
        model.compile_experts()  # the other step calls none of what that fuses
    one = packs.sample(Grids(latent=(8, 8), vision=(8, 8)), 48)
    layout = packs.repeated(one, options.tokens)
    inputs, target = packs.inputs(layout, model.config, torch.float32)
    mask = plain_step.dense_mask(layout, torch.float32)
    ways: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: _ours(model, layout, inputs, target),
        "plain": lambda: plain_step.loss(model, layout, inputs, target, mask),
    }
    if problem := _difference(model, ways):
        print(problem, file=sys.stderr)
        return 1
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds):
        for name, loss in ways.items():
            model.zero_grad(set_to_none=True)
            began = clock()
            loss().backward()
            seconds[name].append(clock() - began)
            print(
                json.dumps({"round": number, "step": name, "s": round(seconds[name][-1], 3)}),
                flush=True,
            )
    medians = {name: median(times) for name, times in seconds.items()}
    ratio = round(medians["plain"] / medians["ours"], 2)
    found = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "weights": sum(p.numel() for p in model.parameters()),
        "tokens": layout.num_tokens,
        "labels": len(layout.labels),
        "rounds": options.rounds,
        "compile": options.compile,
        "median_s": {name: round(value, 4) for name, value in medians.items()},
        "tokens_per_s": {n: round(layout.num_tokens / value) for n, value in medians.items()},
        "ours_over_plain": ratio,
    }
    print(json.dumps(found))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if ratio >= options.at_least else 1


def _model(tiny: bool) -> Bagel:
    config = models.full_config(_SETUP)
    if not tiny:
        config = replace(
            config,
            transformer=TransformerConfig(
                hidden_size=512,
                intermediate_size=1408,
                num_layers=12,
                num_heads=8,
                num_kv_heads=2,
                head_dim=64,
                vocab_size=32_000,
            ),
            vision=VisionConfig(
                hidden_size=192,
                intermediate_size=768,
                num_layers=4,
                num_heads=3,
                positions_per_side=8,
            ),
        )
    return models.build(config, _SETUP, torch.float32).train()


def _ours(model: Bagel, layout: Layout, inputs: Inputs, target: Tensor) -> Tensor:
    hidden = model(layout, inputs, PackedAttention(layout))
    losses = token_losses(model, hidden, layout, target)
    return losses.ce_sum(layout) + losses.mse_sum()


def _difference(model: Bagel, ways: dict[str, Callable[[], Tensor]]) -> str:
    """What differs between both by more than rounding; nothing where they compute the same."""
    losses, gradients = {}, {}
    for name, loss in ways.items():
        model.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        losses[name] = value.item()
        gradients[name] = {
            n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
        }
    if abs(losses["ours"] - losses["plain"]) > 1e-4 * abs(losses["plain"]):
        return f"losses differ: {losses}"
    for name, wanted in gradients["plain"].items():
        error = (gradients["ours"][name] - wanted).abs().max()
        if error > 1e-3 * wanted.abs().max() + 1e-5:
            return f"the gradient of {name} differs by {error}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
