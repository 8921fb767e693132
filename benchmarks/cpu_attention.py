"""A training pack's attention on a CPU, forward and backward, by each way there is.

    python benchmarks/cpu_attention.py
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/cpu_attention.py

The second line shows a CPU without bfloat16 products on one that has them. Packs are the
miniature's, of 3,600 tokens with four noised copies a sketch: `one_shot` samples, as its base
learns, and `staged` trajectories of three rounds. Ways take turns, so that a busy machine is unfair
to none. A JSON line a pack and precision says how many milliseconds each takes (the median), and
how many times as fast the trainer's is as `whole_sdpa`: whole samples, torch's masked kernel.
Exit code 0, or 1 where two ways disagree by more than rounding.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # from a bare checkout
from benchmarks.parts.packs import SPECIAL
from staged.allocator import keep_freed_memory
from staged.model import attention, blocks
from staged.model.attention import PackedAttention
from staged.model.layout import Grids, Layout, Segment, lay_out
from staged.sequence import clean_copies, noised_copy, text_block

HEADS, KEY_HEADS, HEAD_DIM = 6, 3, 32
GRIDS = Grids(latent=(6, 6), vision=(6, 6))
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Of the largest magnitude."""

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def masked_sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Torch's kernel, as `attend_rows` calls it in float32."""
    attended: Tensor = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, enable_gqa=True
    )
    return attended


def products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Two products and a softmax, as `attend_rows` computes them in bfloat16."""
    scaled = query * query.shape[-1] ** -0.5
    folded = rearrange(scaled, "g (k r) q d -> g k (r q) d", k=key.shape[1])
    scores = (folded @ key.transpose(-1, -2)).view(*query.shape[:-1], key.shape[-2])
    attended = (scores + mask).softmax(dim=-1).view(*folded.shape[:-1], -1) @ value
    unfolded: Tensor = rearrange(attended, "g k (r q) d -> g (k r) q d", q=query.shape[2])
    return unfolded


KERNELS: dict[str, Kernel] = {"sdpa": masked_sdpa, "products": products}
PLANS = {"whole": blocks.whole_samples, "blocks": blocks.cut_samples}
REFERENCE, OURS = "whole_sdpa", "trainer"


@contextmanager
def way(name: str) -> Iterator[None]:
    """Let packs be attended one way while the block lasts."""
    if name == OURS:
        yield
        return
    plan, kernel = name.split("_")
    with (
        patch.object(attention, "cut_samples", PLANS[plan]),
        patch.object(attention, "attend_rows", KERNELS[kernel]),
    ):
        yield


def one_shot(copies: int) -> list[Segment]:
    """A prompt and its picture."""
    return [text_block(range(10, 34)), *[noised_copy(GRIDS)] * copies]


def staged(copies: int) -> list[Segment]:
    """A prompt, then three times: plan, sketch, inspection."""
    segments = [text_block(range(10, 34))]
    for number in range(3):
        segments += [text_block(range(10, 44 + number)), *[noised_copy(GRIDS)] * copies]
        segments += [*clean_copies(GRIDS), text_block(range(10, 26))]
    return segments


def pack(sample: Sequence[Segment], num_tokens: int) -> Layout:
    """As many samples as fit, and at least one."""
    length = sum(segment.num_tokens for segment in sample)
    return lay_out([sample] * max(num_tokens // length, 1), SPECIAL)


def step(attend: PackedAttention, tensors: list[Tensor], back: Tensor) -> list[Tensor]:
    """Forward and backward."""
    out = attend(0, *tensors)
    return [out, *torch.autograd.grad(out, tensors, back)]


def measure(layout: Layout, dtype: torch.dtype, repeats: int) -> dict[str, float]:
    """Milliseconds of each way.

    Raises:
        ArithmeticError: one computes something else.
    """
    generator = torch.Generator().manual_seed(0)
    query, key, value, back = (
        torch.randn(layout.num_tokens, heads, HEAD_DIM, generator=generator).to(dtype)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS, HEADS)
    )
    tensors = [tensor.requires_grad_() for tensor in (query, key, value)]
    names = [f"{plan}_{kernel}" for plan in PLANS for kernel in KERNELS] + [OURS]
    steps: dict[str, Callable[[], list[Tensor]]] = {}
    expected: list[Tensor] = []
    for name in names:
        with way(name):
            steps[name] = partial(step, PackedAttention(layout), tensors, back)
            found = steps[name]()
        expected = expected or found
        for one, other in zip(found, expected, strict=True):
            difference = (one - other).detach().float().abs().max()
            if not difference <= TOLERANCE[dtype] * other.detach().float().abs().max():
                raise ArithmeticError(f"{name} and {REFERENCE} differ by {float(difference):.2g}")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            with way(name):
                began = time.perf_counter()
                steps[name]()
                seconds[name].append(time.perf_counter() - began)
    return {name: 1e3 * median(values) for name, values in seconds.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both packs in both precisions."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num-tokens", type=int, default=3600, help="of a pack")
    parser.add_argument("--copies", type=int, default=4, help="noised, of each sketch")
    parser.add_argument("--repeats", type=int, default=15, help="of each way")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as the trainer does
    for sample in (one_shot, staged):
        layout = pack(sample(options.copies), options.num_tokens)
        for dtype in (torch.bfloat16, torch.float32):
            try:
                found = measure(layout, dtype, options.repeats)
            except ArithmeticError as error:
                print(f"{sample.__name__}, {dtype}: {error}", file=sys.stderr)
                return 1
            facts = {
                "pack": sample.__name__,
                "dtype": str(dtype).removeprefix("torch."),
                "tokens": layout.num_tokens,
                "capability": torch.backends.cpu.get_cpu_capability(),
                "milliseconds": {name: round(value, 2) for name, value in found.items()},
                "times_as_fast": round(found[REFERENCE] / found[OURS], 2),
            }
            print(json.dumps(facts), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
