"""What CUDA's kernels are given, with plain mathematics in their place: values and gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from test_attention import PACKS, layout_of, plain, random, with_gradients
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from staged.model.attention import Attend, PackedAttention
from staged.model.flex import BLOCK, FlexAttention, block_mask, mask_rule
from staged.model.layout import Layout
from staged.model.varlen import VarlenAttention
from train import attention as choice
from train.attention import choose_attention, gradient_problem
from train.ranks import Ranks


def dense_flex(
    query: Tensor, key: Tensor, value: Tensor, *, block_mask: BlockMask, enable_gqa: bool
) -> Tensor:
    """What flex attention computes: whole blocks as they are, others by the rule, no others."""
    size = query.shape[-2]
    places = torch.arange(size)
    assert block_mask.full_kv_num_blocks is not None and block_mask.full_kv_indices is not None
    some, whole = (torch.zeros(size // BLOCK, size // BLOCK, dtype=torch.bool) for _ in range(2))
    for table, numbers, indices in (
        (some, block_mask.kv_num_blocks, block_mask.kv_indices),
        (whole, block_mask.full_kv_num_blocks, block_mask.full_kv_indices),
    ):
        for row, (number, which) in enumerate(zip(numbers[0, 0], indices[0, 0], strict=True)):
            table[row, which[:number].long()] = True
    some, whole = (
        table.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1) for table in (some, whole)
    )
    zero = torch.tensor(0)
    rule = block_mask.mask_mod(zero, zero, places[:, None], places)
    mask = whole | (some & rule)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=enable_gqa)


def dense_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    most_queries: int,
    most_keys: int,
    causal: bool,
) -> Tensor:
    """What flash attention's kernel computes: row by row, causal ones with their ends side by side.

    It reads no key beyond the most that it was told.
    """
    rows = []
    bounds = zip(query_ends[:-1], query_ends[1:], key_ends[:-1], key_ends[1:], strict=True)
    for q0, q1, k0, k1 in bounds:
        assert q1 - q0 <= most_queries and k1 - k0 <= most_keys
        q, k, v = (x.transpose(0, 1) for x in (query[q0:q1], key[k0:k1], value[k0:k1]))
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
        mask = mask.tril(k.shape[-2] - q.shape[-2]) if causal else mask
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        rows.append(out.transpose(0, 1))
    return torch.cat(rows)


WAYS: dict[str, Callable[[Layout], Attend]] = {
    "flex": lambda layout: FlexAttention(layout, dense_flex),
    "flex with room": lambda layout: FlexAttention(layout, dense_flex, room=3000),
    "varlen": lambda layout: VarlenAttention(layout, dense_varlen),
}


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("way", WAYS)
def test_kernels_are_given_what_the_rule_says(way: str, pack: str) -> None:
    layout = layout_of(pack)
    tensors = random(layout, torch.float64)
    attend: Any = WAYS[way](layout)
    found = with_gradients(lambda q, k, v: attend(0, q, k, v), tensors)
    expected = with_gradients(lambda q, k, v: plain(layout, q, k, v), tensors)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("pack", PACKS)
def test_blocks_are_those_that_torch_finds(pack: str) -> None:
    layout = layout_of(pack)
    size = (layout.num_tokens // BLOCK + 2) * BLOCK  # a block of filling at least
    expected = create_block_mask(mask_rule(layout, size), None, None, size, size, device="cpu")
    found = block_mask(layout, size)
    assert torch.equal(found.to_dense(), expected.to_dense())
    for name in ("kv", "full_kv", "q", "full_q"):  # the last two are what the backward pass reads
        numbers = getattr(found, f"{name}_num_blocks")
        assert torch.equal(numbers, getattr(expected, f"{name}_num_blocks")), name
        listed, wanted = (getattr(mask, f"{name}_indices")[0, 0] for mask in (found, expected))
        for number, ours, theirs in zip(numbers[0, 0], listed, wanted, strict=True):
            assert torch.equal(ours[:number], theirs[:number]), name
    assert found.shape == (1, 1, size, size)


DECODER = tiny.CONFIG.transformer


@pytest.mark.parametrize("way", WAYS)
def test_what_is_right_passes_the_check_before_training(way: str) -> None:
    assert not gradient_problem(WAYS[way], DECODER, torch.device("cpu"), torch.float32)


def test_a_wrong_gradient_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """As kernels were met that give the right result and the wrong gradient."""

    def unlearning(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Tensor:
        return dense_varlen(query, key + 0.1 * (key.detach() - key), value, *rest)

    def without_value(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Tensor:
        return dense_varlen(query, key, value * float("nan"), *rest)

    for kernel, problem in (
        (unlearning, "the gradient of its keys is off by 0.1 of the largest"),
        (without_value, "its result is off by nan of the largest"),
    ):
        found = gradient_problem(
            lambda layout, kernel=kernel: VarlenAttention(layout, kernel),
            *(DECODER, torch.device("cpu"), torch.float32),
        )
        assert found == problem


def chosen(wanted: Any, device: str) -> tuple[Any, str]:
    return choose_attention(
        *(wanted, DECODER, torch.device(device), torch.float32), room=300, ranks=Ranks()
    )


def test_a_cpu_keeps_its_blocks() -> None:
    assert chosen("auto", "cpu") == chosen("blocks", "cpu") == (PackedAttention, "")
    with pytest.raises(ValueError, match="attention=flex is computed by kernels of CUDA devices"):
        chosen("flex", "cpu")


def test_the_first_kernel_whose_gradients_are_right_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = "the gradient of its keys is off by 0.4 of the largest"
    problems = {"FlexAttention": wrong, "VarlenAttention": ""}
    monkeypatch.setattr(
        choice, "gradient_problem", lambda attend_to, *_: problems[attend_to.func.__name__]
    )
    attend_to, said = chosen("auto", "cuda")
    assert attend_to.func is VarlenAttention
    assert said == f"attention: varlen, its gradients checked; not flex: {wrong}"
    with pytest.raises(ValueError, match=f"attention=flex cannot be had; not flex: {wrong}"):
        chosen("flex", "cuda")
    problems["VarlenAttention"] = nothing = "its result is off by nan of the largest"
    attend_to, said = chosen("auto", "cuda")
    assert attend_to is PackedAttention
    assert said == f"attention: blocks; not flex: {wrong}; not varlen: {nothing}"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there the kernels may be right")
def test_a_kernel_that_fails_is_told_and_not_taken() -> None:
    attend_to, said = chosen("auto", "cuda")
    assert attend_to is PackedAttention
    assert said.startswith("attention: blocks; not flex: ") and "; not varlen: " in said
