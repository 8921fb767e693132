import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from staged.shapes.__main__ import main
from staged.shapes.sight.detect import detect, scene_from
from staged.shapes.sight.measure import (
    CONDITIONS,
    measure,
    num_right,
    sample_apart,
    sample_overlapping,
)
from staged.shapes.world.render import render
from staged.shapes.world.scene import CANVAS_PX, COLORS, KINDS, SIZES, Scene, Shape

GREY = (172, 170, 168)


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_clean_renders_read_back_exactly(seed):
    scene = sample_apart(np.random.default_rng(seed))
    back = scene_from(render(scene))
    assert back.background == scene.background
    assert sorted(map(repr, back.shapes)) == sorted(map(repr, scene.shapes))


def test_every_shape_in_every_color_and_size_is_recognised_at_every_edge():
    for kind in KINDS:
        for index, color in enumerate(COLORS):
            for size in SIZES:
                half = 6 if size == "small" else 10
                x, y = ((half, 24), (47 - half, 24), (24, half), (24, 47 - half))[index % 4]
                shape = Shape(kind=kind, color=color, size=size, x=x, y=y)
                scene = Scene(shapes=(shape,), background=GREY)
                assert scene_from(render(scene)) == scene


def test_masks_and_boxes_cover_the_visible_pixels():
    shape = Shape(kind="square", color="blue", size="small", x=20, y=30)
    (found,) = detect(render(Scene(shapes=(shape,), background=GREY)))
    assert found.box == (15, 25, 26, 36)
    assert found.mask[25:36, 15:26].all() and found.mask.sum() == 11 * 11
    assert found.score > 0.99


def test_specks_are_ignored_and_blobs_are_reported():
    image = np.full((CANVAS_PX, CANVAS_PX, 3), 170, dtype=np.uint8)
    assert detect(image) == []
    image[5:8, 5:9] = (220, 25, 30)
    assert detect(image) == []
    image[20:23, 5:45] = (220, 25, 30)
    (blob,) = detect(image)
    assert blob.color == "red" and blob.score < 0.6


def test_overlapping_shapes_are_all_found():
    rng = np.random.default_rng(0)
    right = total = 0
    for _ in range(60):
        scene = sample_overlapping(rng)
        right += num_right(scene.shapes, detect(render(scene)))
        total += len(scene.shapes)
    assert right / total > 0.97


def test_touching_shapes_of_one_color_are_told_apart():
    shapes = (
        Shape(kind="circle", color="red", size="small", x=14, y=20),
        Shape(kind="square", color="red", size="small", x=27, y=20),
    )
    found = detect(render(Scene(shapes=shapes, background=GREY)))
    assert {(d.kind, d.x, d.y) for d in found} == {("circle", 14, 20), ("square", 27, 20)}


def test_measured_rates_hold_on_a_small_sample():
    rates = {m.condition: m for m in measure(60, seed=5)}
    assert list(rates) == list(CONDITIONS)
    for condition, least in (("clean", 1.0), ("noise, sigma 25", 0.95), ("blur, sigma 1.0", 0.97)):
        assert rates[condition].precision >= least and rates[condition].recall >= least


def test_wrong_detections_count_against_precision_and_recall():
    scene = Scene(shapes=(Shape(kind="star", color="red", size="large", x=24, y=24),))
    found = detect(render(scene))
    moved = Shape(kind="star", color="red", size="large", x=30, y=24)
    assert num_right(scene.shapes, found) == 1
    assert num_right([moved], found) == 0
    assert num_right(scene.shapes * 2, found) == 1


@pytest.mark.parametrize("shape", [(47, 48, 3), (48, 48)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="48"):
        detect(np.zeros(shape, dtype=np.uint8))


def test_measuring_writes_table_and_counts(tmp_path, capsys):
    page, counts = tmp_path / "page.md", tmp_path / "counts.json"
    arguments = ["--num-scenes", "3", "--out", str(counts), "--markdown", str(page)]
    assert main(["measure-detector", *arguments]) == 0
    assert "| clean | 3 |" in capsys.readouterr().out
    assert "| overlapping | 3 |" in page.read_text()
    assert '"num_objects"' in counts.read_text()
