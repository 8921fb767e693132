"""What a step changed in a picture, as the reports show it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from staged import images
from staged.report.changed import MIN_DIFFERENCE, change


def plain(width: int = 40, height: int = 20) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 120, np.uint8)


def test_what_changed_is_red_and_the_rest_is_a_pale_grey() -> None:
    before, after = plain(), plain()
    after[5:10, 10:30] = (250, 120, 120)
    found = change(images.encode_png(before), images.encode_png(after))
    assert found is not None and found.share == pytest.approx(100 / 800)
    seen = images.decode(found.png).astype(int)
    assert seen.shape == (20, 40, 3)
    inside, outside = seen[7, 20], seen[0, 0]
    assert inside[0] > inside[1] + 100 and inside[0] > inside[2] + 100
    assert outside.max() == outside.min() > 200


def test_the_noise_of_an_autoencoder_is_no_change() -> None:
    before = plain()
    noise = np.random.default_rng(0).integers(
        -MIN_DIFFERENCE // 2, MIN_DIFFERENCE // 2, (20, 40, 3)
    )
    after = (before + noise).astype(np.uint8)
    found = change(images.encode_png(before), images.encode_png(after))
    assert found is not None and found.share == 0


def test_large_pictures_are_reduced_and_other_sizes_not_compared() -> None:
    large = images.encode_png(plain(700, 350))
    found = change(large, large)
    assert found is not None and found.share == 0
    assert images.probe(found.png)[1:] == (320, 160)
    assert change(large, images.encode_png(plain())) is None
