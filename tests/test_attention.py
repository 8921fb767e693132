"""Attention over packs: blocks of queries against the plain rule, values and gradients."""

import math

import pytest
import torch
from torch import Tensor

from staged.model import attention, blocks
from staged.model.attention import PackedAttention, attend_rows
from staged.model.blocks import QueryBlock, cut_samples, group, whole_samples
from staged.model.layout import Layout, Segment, SegmentKind, SpecialTokens, lay_out

SPECIAL = SpecialTokens(text_start=0, text_end=1, image_start=2, image_end=3, stop=4)
HEADS, KEY_HEADS, DIM = 6, 3, 8


def text(length: int) -> Segment:
    return Segment(kind=SegmentKind.TEXT, ids=(5,) * length)


def image(kind: SegmentKind, side: int, *, dropped: bool = False) -> Segment:
    return Segment(kind=kind, grid=(side, side), dropped=dropped)


def staged(rounds: int, copies: int, side: int = 6) -> list[Segment]:
    """A prompt, then rounds of a plan and a sketch as often as training lays it out."""
    segments = [text(9)]
    for number in range(rounds):
        segments += [text(30 + number), *[image(SegmentKind.NOISED, side)] * copies]
        segments += [image(SegmentKind.CLEAN, side), image(SegmentKind.VISION, side // 2)]
        segments.append(text(12))
    return segments


PACKS = {
    "one token": [[text(0)]],
    "as training lays it out": [staged(3, 4), staged(1, 1), staged(2, 4), staged(0, 0)],
    "samples without tokens": [[], staged(1, 2), [image(SegmentKind.CLEAN, 4, dropped=True)], []],
    "segments longer than a block": [
        [text(250), image(SegmentKind.NOISED, 15), image(SegmentKind.CLEAN, 15), text(200)],
        [image(SegmentKind.NOISED, 14), text(3)],
    ],
    "a segment that ends with a block": [[text(94), text(94), image(SegmentKind.NOISED, 3)]],
    "many alike": [staged(1, 4)] * 9,
}


def layout_of(name: str) -> Layout:
    return lay_out(PACKS[name], SPECIAL)


def random(layout: Layout, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys, values, and what flows back, in expert order."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(layout.num_tokens, heads, DIM, generator=generator, dtype=torch.float64).to(
            dtype
        )
        for heads in (HEADS, KEY_HEADS, KEY_HEADS, HEADS)
    ]


def plain(layout: Layout, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The rule itself, sample by sample and head by head."""
    order, rows = layout.expert_order(), layout.expert_rows()
    query, key, value = (x[rows] for x in (query, key, value))
    out = torch.empty_like(query)
    start = 0
    for sample, length in enumerate(layout.sample_lens):
        own = slice(start, start + length)
        for head in range(HEADS):
            shared = head // (HEADS // KEY_HEADS)
            scores = query[own, head] @ key[own, shared].T / math.sqrt(DIM)
            scores = scores.masked_fill(~layout.mask(sample), -math.inf)
            out[own, head] = scores.softmax(-1) @ value[own, shared]
        start += length
    return out[order]


def with_gradients(attend, tensors: list[Tensor]) -> list[Tensor]:
    *leaves, back = tensors
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    out = attend(*leaves)
    return [out, *torch.autograd.grad(out, leaves, back)]


def both(layout: Layout, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    tensors = random(layout, dtype)
    packed = PackedAttention(layout)
    found = with_gradients(lambda q, k, v: packed(0, q, k, v), tensors)
    exact = [tensor.double() for tensor in tensors]
    return found, with_gradients(lambda q, k, v: plain(layout, q, k, v), exact)


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-11), (torch.float32, 1e-5), (torch.bfloat16, 0.03)],
    ids=str,
)
def test_blocks_give_what_the_rule_says(pack: str, dtype: torch.dtype, tolerance: float) -> None:
    for found, expected in zip(*both(layout_of(pack), dtype), strict=True):
        assert found.dtype == dtype
        largest = float(expected.detach().abs().max())
        torch.testing.assert_close(
            found.double(), expected, atol=tolerance * largest, rtol=tolerance
        )


@pytest.mark.parametrize("size", [1, 7, 38, 64, 10_000])
def test_no_size_of_a_block_changes_the_result(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK", size)
    for pack in PACKS:
        for found, expected in zip(*both(layout_of(pack), torch.float64), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


def test_whole_samples_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan of accelerators, with the kernel of a CPU."""
    monkeypatch.setattr(attention, "cut_samples", whole_samples)
    for pack in PACKS:
        for found, expected in zip(*both(layout_of(pack), torch.float64), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


def test_a_plan_serves_another_precision_after_the_first() -> None:
    layout = layout_of("as training lays it out")
    packed = PackedAttention(layout)
    wide = packed(0, *random(layout, torch.float32)[:3])
    narrow = packed(1, *random(layout, torch.bfloat16)[:3])
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), wide, atol=0.05, rtol=0.05)
    assert torch.equal(packed(2, *random(layout, torch.float32)[:3]), wide)


def met(block: QueryBlock) -> set[int]:
    return {place for run in block.keys for place in run}


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("size", [5, 96])
def test_every_query_is_in_one_block_with_all_that_it_may_see(
    pack: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_BLOCK", size)
    layout = layout_of(pack)
    found = cut_samples(layout)
    assert [place for block in found for place in block.queries] == list(range(layout.num_tokens))
    for block in found:
        assert 0 < len(block.queries) <= size
        assert block.num_keys == len(met(block)), "a key twice"
    start = 0
    by_query = {place: block for block in found for place in block.queries}
    for sample, length in enumerate(layout.sample_lens):
        own = set(range(start, start + length))
        for query, row in enumerate(layout.mask(sample), start):
            keys = met(by_query[query])
            assert keys <= own
            assert {start + int(key) for key in row.nonzero()} <= keys
        start += length
    assert sorted((b for g in group(found) for b in g), key=lambda b: b.queries.start) == found


def test_noised_copies_cost_what_they_see_and_hardly_more() -> None:
    """All pairs of a sample were computed: three to four times those that count."""
    layout = lay_out([staged(3, 4), staged(4, 4)], SPECIAL)
    whole = sum(length**2 for length in layout.sample_lens)
    seen = sum(int(layout.mask(sample).sum()) for sample in range(2))
    computed = sum(len(block.queries) * block.num_keys for block in cut_samples(layout))
    assert seen / whole < 0.3
    assert computed / seen < 1.5


def test_padding_is_bounded_and_few_calls_are_made() -> None:
    found = cut_samples(lay_out([staged(n % 4, 1 + n % 4) for n in range(40)], SPECIAL))
    groups = group(found)
    assert len(groups) < len(found) / 4
    for members in groups:
        real = sum(len(block.queries) * block.num_keys for block in members)
        widest = max(len(block.queries) for block in members)
        longest = max(block.num_keys for block in members)
        assert widest * longest * len(members) <= 1.2 * real


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("masked", [True, False])
def test_rows_attend_alike_in_both_precisions(dtype: torch.dtype, masked: bool) -> None:
    """As a cache is met: fewer queries than keys, with a mask or without."""
    generator = torch.Generator().manual_seed(1)
    query, key, value = (
        torch.randn(3, heads, length, DIM, generator=generator)
        for heads, length in ((HEADS, 5), (KEY_HEADS, 11), (KEY_HEADS, 11))
    )
    mask = torch.rand(3, 1, 5, 11, generator=generator) < 0.7
    mask[..., 0] = True
    sees = mask if masked else torch.ones_like(mask)
    shared = [x.repeat_interleave(HEADS // KEY_HEADS, dim=1) for x in (key, value)]
    scores = (query @ shared[0].transpose(-1, -2) / math.sqrt(DIM)).masked_fill(~sees, -math.inf)
    expected = scores.softmax(-1) @ shared[1]
    given = [x.to(dtype) for x in (query, key, value)]
    found = attend_rows(*given, mask if masked else None)
    tolerance = 0.03 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)
