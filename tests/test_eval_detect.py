import json
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from eval.__main__ import main as staged_eval
from eval.geneval.detect_folder import detect_in_folder
from eval.geneval.detector import MiniatureDetector, ObjectDetector, open_detector
from eval.geneval.folders import image_path, write_folders
from eval.geneval.prompt import parse_prompt
from eval.geneval.selftest import check, miniature_golden, read_golden
from eval.results import BenchmarkResult
from staged.jobs.rank import Rank
from staged.shapes.world.render import render
from staged.shapes.world.scene import KINDS, Scene, Shape

GREY = (170, 170, 170)


def scene(*looks):
    shapes = tuple(
        Shape(kind=kind, color=color, size="large", x=12 + 24 * i, y=24)
        for i, (kind, color) in enumerate(looks)
    )
    return render(Scene(shapes=shapes, background=GREY))


def prompts():
    records = [
        ("single_object", [{"class": "star", "count": 1}]),
        ("colors", [{"class": "ring", "count": 1, "color": "blue"}]),
        ("counting", [{"class": "heart", "count": 2}]),
    ]
    return [
        parse_prompt({"tag": tag, "include": include, "prompt": f"{tag} {i}"}, "test")
        for i, (tag, include) in enumerate(records)
    ]


@pytest.fixture
def folder(tmp_path):
    """Three prompts with two images each: the first is right, the second is not."""
    folder = tmp_path / "images"
    write_folders(folder, prompts())
    right = [scene(("star", "red")), scene(("ring", "blue")), scene(*[("heart", "red")] * 2)]
    wrong = [scene(("cross", "red")), scene(("ring", "green")), scene(("heart", "red"))]
    for index in range(3):
        for image, pixels in enumerate((right[index], wrong[index])):
            Image.fromarray(pixels).save(image_path(folder, index, image))
    return folder


def scored(tmp_path, folder, *files, images=2):
    out = tmp_path / "result.json"
    code = staged_eval(
        ["geneval", "--detections", *map(str, files), "--prompts", str(folder),
         "--images-per-prompt", str(images), "--out", str(tmp_path / "scored.jsonl"),
         "--result", str(out), "--name", "run"]
    )  # fmt: skip
    return code, out.read_bytes()


class Counting(MiniatureDetector):
    looked = 0

    def detect(self, image):
        self.looked += 1
        return super().detect(image)


def test_a_folder_is_detected_in_and_scored(tmp_path, folder, capsys):
    found = tmp_path / "found.jsonl"
    detect = ["detect", str(folder), "--detector", "miniature", "--out", str(found)]
    assert staged_eval(detect) == 0
    assert "looked at 6 images, 0 were there, 0 failed" in capsys.readouterr().out
    code, _ = scored(tmp_path, folder, found)
    assert code == 0
    result = BenchmarkResult.read(tmp_path / "result.json")
    assert {name: e.value for name, e in result.estimates.items()} == {
        "overall": 0.5, "single_object": 0.5, "colors": 0.5, "counting": 0.5,
    }  # fmt: skip
    assert result.variant["detector"] == "miniature"
    reasons = [json.loads(t)["reason"] for t in (tmp_path / "scored.jsonl").read_text().split("\n")
               if t]  # fmt: skip
    assert "expected blue ring>=1, found 0 blue; and 1 green" in reasons
    assert staged_eval(detect) == 0
    assert "looked at 0 images, 6 were there" in capsys.readouterr().out


def test_interrupted_sharded_and_shuffled_runs_leave_the_same_result(tmp_path, folder):
    whole = tmp_path / "whole.jsonl"
    detector = ObjectDetector(name="miniature", detector=MiniatureDetector())
    detect_in_folder(folder, whole, detector)
    _, expected = scored(tmp_path, folder, whole)

    # Killed in the middle of the third line.
    half = tmp_path / "half.jsonl"
    lines = whole.read_bytes().split(b"\n")
    half.write_bytes(b"\n".join(lines[:2]) + b"\n" + lines[2][:40])
    counting = Counting()
    counts = detect_in_folder(folder, half, ObjectDetector(name="miniature", detector=counting))
    assert (counts.kept, counts.new, counting.looked) == (2, 4, 4)
    assert scored(tmp_path, folder, half)[1] == expected

    shared = tmp_path / "shared.jsonl"
    for rank in (2, 0, 1):
        assert not shared.exists()
        command = ["detect", str(folder), "--detector", "miniature", "--out", str(shared)]
        assert staged_eval([*command, "--rank", str(rank), "--world-size", "3"]) == 0
    assert shared.read_bytes() == whole.read_bytes()
    # Lines that are spread over files are scored alike.
    parts = sorted(tmp_path.glob("shared.jsonl.*"))
    assert len(parts) == 3
    assert scored(tmp_path, folder, *parts)[1] == expected

    shuffled = whole.read_bytes().splitlines()
    random.Random(1).shuffle(shuffled)
    whole.write_bytes(b"\n".join(shuffled) + b"\n")
    assert scored(tmp_path, folder, whole)[1] == expected


def test_images_that_changed_and_other_detectors_are_looked_at_again(tmp_path, folder):
    out, counting = tmp_path / "found.jsonl", Counting()
    detector = ObjectDetector(name="a", detector=counting)
    detect_in_folder(folder, out, detector)
    Image.fromarray(scene(("star", "pink"))).save(image_path(folder, 0, 0))
    assert detect_in_folder(folder, out, detector).new == 1
    assert detect_in_folder(folder, out, replace(detector, name="b")).new == 6


def test_an_image_that_cannot_be_read_is_unscored_and_tried_again(tmp_path, folder):
    path, out = image_path(folder, 1, 0), tmp_path / "found.jsonl"
    good = path.read_bytes()
    path.write_bytes(b"no image")
    detector = ObjectDetector(name="miniature", detector=MiniatureDetector())
    assert detect_in_folder(folder, out, detector).failed == 1
    code, _ = scored(tmp_path, folder, out)
    assert code == 1
    assert BenchmarkResult.read(tmp_path / "result.json").estimates["colors"].unscored == 1
    path.write_bytes(good)
    counts = detect_in_folder(folder, out, detector)
    assert (counts.new, counts.failed) == (1, 0)


def test_images_that_were_never_drawn_are_unscored(tmp_path, folder):
    out = tmp_path / "found.jsonl"
    detect_in_folder(folder, out, ObjectDetector(name="miniature", detector=MiniatureDetector()))
    code, _ = scored(tmp_path, folder, out, images=4)
    assert code == 1
    assert BenchmarkResult.read(tmp_path / "result.json").overall.unscored == 6


def test_detections_of_two_detectors_are_not_mixed(tmp_path, folder):
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for i, path in enumerate(files):
        detector = ObjectDetector(name=path.stem, detector=MiniatureDetector())
        detect_in_folder(folder, path, detector, rank=Rank(number=i, world_size=2))
    files = sorted(tmp_path.glob("?.jsonl.*"))
    with pytest.raises(ValueError, match="2 detectors: a; b"):
        scored(tmp_path, folder, *files)


def test_sound_eyes_pass_the_self_test():
    golden = miniature_golden()
    check(open_detector("miniature"), golden)
    assert {image.correct for image in golden} == {True, False}


class Broken(MiniatureDetector):
    """A detector with one fault."""

    def __init__(self, fault):
        self.fault = fault
        self.rng = np.random.default_rng(0)

    def detect(self, image):
        if self.fault == "channels":
            return super().detect(image[..., ::-1].copy())
        found = super().detect(image)
        if self.fault == "random":
            return tuple(replace(d, class_name=str(self.rng.choice(KINDS))) for d in found)
        if self.fault == "too sure":
            return tuple(d for d in found for _ in range(2))
        if self.fault == "too unsure":
            return tuple(replace(d, score=d.score * 0.85) for d in found)
        return ()


@pytest.mark.parametrize("fault", ["random", "channels", "too sure", "too unsure", "blind"])
def test_a_broken_detector_is_refused(fault):
    with pytest.raises(ValueError, match="golden images, so it is not used"):
        check(ObjectDetector(name=fault, detector=Broken(fault)), miniature_golden())


def test_golden_images_that_cannot_tell_are_refused():
    alike = [image for image in miniature_golden() if not image.correct]
    with pytest.raises(ValueError, match="one verdict alone"):
        check(ObjectDetector(name="blind", detector=Broken("blind")), alike)


def test_golden_images_are_read_from_a_folder(tmp_path):
    Image.fromarray(scene(("star", "red"))).save(tmp_path / "a.png")
    star, ring, _ = (p.as_dict() for p in prompts())
    lines = [{"image": "a.png", "metadata": star, "correct": True},
             {"image": "a.png", "metadata": ring, "correct": False}]  # fmt: skip
    (tmp_path / "golden.jsonl").write_text("\n".join(map(json.dumps, lines)))
    golden = read_golden(tmp_path)
    check(open_detector("miniature"), golden)
    (tmp_path / "golden.jsonl").write_text(json.dumps(lines[0] | {"image": "../a.png"}))
    with pytest.raises(ValueError, match=r"golden\.jsonl:1\.image"):
        read_golden(tmp_path)


def test_photographs_are_not_looked_at_without_a_self_test(tmp_path, folder):
    with pytest.raises(ValueError, match="--golden is missing"):
        staged_eval(["detect", str(folder), "--detector", "mask2former", "--out", "x"])


def test_a_random_mask2former_is_refused(tmp_path):
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    from eval.geneval.mask2former import Mask2FormerDetector
    from eval.geneval.names import CLASSES

    swin = SwinConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2],
                      out_features=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32,
        encoder_feedforward_dim=16, dim_feedforward=16, encoder_layers=1, decoder_layers=2,
        num_attention_heads=2, num_queries=4, id2label=dict(enumerate(CLASSES)),
        label2id={name: index for index, name in enumerate(CLASSES)},
    )  # fmt: skip
    model = Mask2FormerForUniversalSegmentation(config)
    detector = Mask2FormerDetector(model, weights="random")
    Image.fromarray(scene(("ring", "red"))).save(tmp_path / "a.png")
    lines = [
        {"image": "a.png", "correct": correct, "metadata": {
            "tag": "single_object", "include": [{"class": name, "count": 1}], "prompt": name}}
        for name, correct in (("donut", True), ("person", False))
    ]  # fmt: skip
    (tmp_path / "golden.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match="not used"):
        check(ObjectDetector(name=detector.name, detector=detector), read_golden(tmp_path))
