"""Gradients are cut to a length, as torch cuts those of whole tensors."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from train.clipping import clip_gradients


def parameters(shapes: Sequence[tuple[int, ...]], seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    made = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for parameter in made:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return [*made, nn.Parameter(torch.ones(3))]  # the last one has no gradient


@pytest.mark.parametrize("max_norm", [0.5, 1e3])
def test_it_cuts_as_torch_does(max_norm: float) -> None:
    shapes = [(3, 4), (5,), (), (0, 2)]
    ours, theirs = parameters(shapes), parameters(shapes)
    norm = clip_gradients(ours, max_norm)
    expected = nn.utils.clip_grad_norm_(theirs, max_norm).item()
    assert norm == pytest.approx(expected, rel=1e-6)
    for one, other in zip(ours[:-1], theirs[:-1], strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad, other.grad)
    assert ours[-1].grad is None
    left = math.sqrt(sum(p.grad.square().sum().item() for p in ours if p.grad is not None))
    assert left == pytest.approx(min(max_norm, expected), rel=1e-5)


def test_what_is_not_finite_is_told_and_nothing_to_cut_is_no_error() -> None:
    spoilt = parameters([(2,), (2,)])
    assert spoilt[1].grad is not None
    spoilt[1].grad[0] = math.inf
    assert not math.isfinite(clip_gradients(spoilt, 1.0))
    assert clip_gradients([nn.Parameter(torch.ones(2))], 1.0) == 0.0
