"""Pixels to network input and back, and resizing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from staged.model.images import fit_size, from_pixels, resize, to_pixels


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    stride=st.sampled_from([8, 14, 16]),
    strides=st.integers(1, 70),
    smallest=st.integers(1, 512),
)
def test_fitted_sizes_keep_to_stride_and_maximum(
    width: int, height: int, stride: int, strides: int, smallest: int
) -> None:
    largest = stride * strides
    size = fit_size(width, height, max_size=largest, min_size=min(smallest, largest), stride=stride)
    assert all(side % stride == 0 and stride <= side <= largest for side in size)


def test_fitted_sizes_turn_with_the_image() -> None:
    limits = {"max_size": 1024, "min_size": 512, "stride": 16}
    assert fit_size(640, 480, **limits) == (688, 512)
    assert fit_size(480, 640, **limits) == (512, 688)


@pytest.mark.parametrize(
    ("width", "height", "limits"),
    [
        (0, 5, {"max_size": 64, "min_size": 32, "stride": 16}),
        (5, 5, {"max_size": 60, "min_size": 32, "stride": 16}),
        (5, 5, {"max_size": 32, "min_size": 64, "stride": 16}),
        (5, 5, {"max_size": 64, "min_size": 32, "stride": 0}),
    ],
)
def test_contradictory_limits_are_refused(width: int, height: int, limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"give|has no size"):
        fit_size(width, height, **limits)


def test_network_input_spans_minus_one_to_one() -> None:
    pixels = np.array([[[0, 255, 51]]], dtype=np.uint8)
    image = from_pixels(pixels)
    assert image.shape == (3, 1, 1)
    torch.testing.assert_close(image.flatten(), torch.tensor([-1.0, 1.0, -0.6]))


def test_pixels_come_back_within_one_level() -> None:
    levels = np.arange(256, dtype=np.uint8)
    pixels = np.stack([levels, levels[::-1], levels], axis=-1)[None]
    back = to_pixels(from_pixels(pixels))
    assert back.dtype == np.uint8
    assert np.abs(back.astype(int) - pixels).max() <= 1


def test_output_outside_the_range_is_clamped() -> None:
    image = torch.tensor([-3.0, 3.0, 0.0]).reshape(3, 1, 1)
    assert to_pixels(image).tolist() == [[[0, 255, 127]]]


def test_an_image_of_the_right_size_is_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    assert np.array_equal(resize(pixels, 12, 8), pixels)
    assert resize(pixels, 6, 4).shape == (4, 6, 3)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4)])
def test_only_rgb_bytes_are_taken(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        from_pixels(np.zeros(shape, dtype=np.uint8))
