"""How a run attends: which kernels its device has, and whether their gradients are right there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from staged.first_line import first_line
from staged.model.attention import Attend, PackedAttention
from staged.model.config import TransformerConfig
from staged.model.flex import BLOCK, FlexAttention
from staged.model.layout import Layout, Segment, SegmentKind, SpecialTokens, lay_out
from staged.model.varlen import VarlenAttention, installed_kernel
from train.ranks import Ranks
from train.settings import Attention, TrainSettings

AttendTo = Callable[[Layout], Attend]
"""Plans attention over a pack that lies on the run's device."""

_TOLERANCE = {torch.bfloat16: 0.03, torch.float32: 0.01}
"""Of results and gradients, over the largest of each. Tensor cores round float32 to ten bits."""


def attention_of(
    settings: TrainSettings,
    config: TransformerConfig,
    device: torch.device,
    dtype: torch.dtype,
    ranks: Ranks,
) -> AttendTo:
    """How a run attends; the first rank says so where there was a choice. See `choose_attention`.

    Args:
        settings: Of the run.
        config: Of its decoder.
        device: Of the run.
        dtype: In which it computes.
        ranks: Its processes.
    """
    attend_to, said = choose_attention(
        *(settings.attention, config, device, dtype), room=settings.pack_tokens, ranks=ranks
    )
    if said and ranks.is_first:
        print(said)
    return attend_to


def choose_attention(
    wanted: Attention,
    config: TransformerConfig,
    device: torch.device,
    dtype: torch.dtype,
    *,
    room: int,
    ranks: Ranks,
) -> tuple[AttendTo, str]:
    """Take the first kernel that the device has and whose gradients are right.

    Kernels of new GPUs have returned wrong gradients without an error, so each is tried on a pack
    of all kinds of segments before the first step. `auto` on a CPU tries none.

    Args:
        wanted: Of the settings.
        config: Of the decoder: numbers and sizes of heads.
        device: Of the run.
        dtype: In which it attends.
        room: Tokens of its longest packs.
        ranks: All of the run choose alike: where one cannot, none does.

    Returns:
        It, and what there is to say of the choice; nothing where there was none.

    Raises:
        ValueError: What the settings name cannot be had; says why.
    """
    if wanted == "blocks" or (wanted == "auto" and device.type != "cuda"):
        return PackedAttention, ""
    if device.type != "cuda":
        raise ValueError(
            f"attention={wanted} is computed by kernels of CUDA devices, and this run's device is "
            f"{device}; leave it at auto"
        )
    refused = ""
    for name in ("flex", "varlen") if wanted == "auto" else (wanted,):
        problem, attend_to = _tried(partial(_made, name, room), config, device, dtype)
        problems = ranks.gather(problem)
        if attend_to is not None and not any(problems):
            return attend_to, f"attention: {name}, its gradients checked{refused}"
        refused += f"; not {name}: {next(filter(None, problems))}"
    if wanted != "auto":
        raise ValueError(f"attention={wanted} cannot be had{refused}. Leave it at auto")
    return PackedAttention, f"attention: blocks{refused}"


def gradient_problem(
    attend_to: AttendTo, config: TransformerConfig, device: torch.device, dtype: torch.dtype
) -> str:
    """What is wrong with a way to attend; nothing where results and gradients are right.

    Set against `PackedAttention` in float32, on a pack with all kinds of segments, shorter and
    longer than a kernel's block.
    """
    layout = _trial().to(device)
    generator = torch.Generator().manual_seed(0)
    heads = (config.num_heads, config.num_kv_heads, config.num_kv_heads, config.num_heads)
    *leaves, back = (
        torch.randn(layout.num_tokens, n, config.head_dim, generator=generator).to(device, dtype)
        for n in heads
    )
    found = _with_gradients(attend_to(layout), leaves, back)
    exact = [leaf.float() for leaf in leaves]
    expected = _with_gradients(PackedAttention(layout), exact, back.float())
    for what, one, other in zip(
        ("its result", *(f"the gradient of its {n}" for n in ("queries", "keys", "values"))),
        found,
        expected,
        strict=True,
    ):
        # A NaN is larger than any tolerance.
        difference = float((one.float() - other).abs().max() / other.abs().max())
        if not difference <= _TOLERANCE.get(dtype, 0.01):
            return f"{what} is off by {difference:.2g} of the largest"
    return ""


def _made(name: str, room: int) -> AttendTo:
    if name == "varlen":
        return partial(VarlenAttention, kernel=installed_kernel())
    # One shape, for which it is compiled once; without compiling it would write all scores out.
    kernel: Callable[..., Any] = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    return partial(FlexAttention, kernel=kernel, room=room)


def _tried(
    make: Callable[[], AttendTo],
    config: TransformerConfig,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[str, AttendTo | None]:
    try:
        attend_to = make()
        return gradient_problem(attend_to, config, device, dtype), attend_to
    except Exception as error:  # a compiler and a driver fail in ways of their own
        return first_line(error), None


def _with_gradients(attend: Attend, tensors: Sequence[Tensor], back: Tensor) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    with torch.enable_grad():
        out = attend(0, *leaves)
        return [out.detach(), *torch.autograd.grad(out, leaves, back)]


def _trial() -> Layout:
    """A pack of two samples with every kind of segment."""
    text = Segment(kind=SegmentKind.TEXT, ids=(0,) * (BLOCK + 5))
    word = Segment(kind=SegmentKind.TEXT, ids=(0,) * 3)
    noised, clean, vision = (
        Segment(kind=kind, grid=(side, side))
        for kind, side in (
            (SegmentKind.NOISED, 12),
            (SegmentKind.CLEAN, 12),
            (SegmentKind.VISION, 6),
        )
    )
    round_of = [noised, noised, clean, vision]
    special = SpecialTokens(text_start=0, text_end=1, image_start=2, image_end=3, stop=4)
    return lay_out([[text, *round_of, word, *round_of, text], [word, *round_of]], special)
