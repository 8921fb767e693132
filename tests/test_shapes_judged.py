"""The detector's verdict stands beside the model's, wherever a miniature draws."""

import json
from pathlib import Path

import numpy as np
import pytest

from staged.cli import main
from staged.images import encode_png
from staged.report import Outcome
from staged.shapes.expectation import expectation
from staged.shapes.sight.judged import judged
from staged.shapes.world.render import render
from staged.shapes.world.scene import Scene, Shape
from staged.trajectory import ImageRef, Sketch, Stop, Trajectory
from staged.trajectory_folder import load_trajectory

RING = render(Scene(shapes=(Shape(kind="ring", color="blue", size="large", x=20, y=20),)))


def drawn(prompt, pixels=RING, **provenance):
    steps = (Sketch(image=ImageRef.from_array(pixels)), Stop())
    return judged(Trajectory(prompt=prompt, steps=steps, provenance=provenance))


def verdict(trajectory):
    return trajectory.provenance.get("detector")


@pytest.mark.parametrize("prompt", ["a photo of a blue ring", "A ring."])
def test_a_right_picture_is_right(prompt):
    assert verdict(drawn(prompt)) == {"correct": True, "exact": True, "reasons": []}


def test_a_wrong_one_is_wrong_with_its_faults_and_the_report_says_so():
    trajectory = drawn("a photo of a star", models={"sketcher": "m"})
    assert verdict(trajectory)["correct"] is False
    assert "the star is missing" in verdict(trajectory)["reasons"]
    [opinion] = Outcome.of(trajectory).opinions
    assert (opinion.who, opinion.mark) == ("The detector", "wrong")
    assert trajectory.provenance["models"] == {"sketcher": "m"}


def test_where_nothing_can_be_said_nothing_is():
    assert verdict(drawn("change the ring to red")) is None
    assert verdict(drawn("a photo of a cat")) is None
    assert verdict(drawn("a photo of a ring", np.zeros((32, 48, 3), np.uint8))) is None
    assert verdict(drawn("a photo of a ring", failure="not_finite")) is None
    assert verdict(judged(Trajectory(prompt="a photo of a ring"))) is None


def test_generate_says_both_verdicts_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted = ["--planner", "scripted", "--inspector", "scripted"]
    argv = ["generate", "a star", "--checkpoint", "miniature:fresh", "--flow-steps", "1", *scripted]
    limits = ["--max-rounds", "1", "--max-refinements", "1", "--json", "--out", str(tmp_path)]
    assert main([*argv, *limits]) == 0
    captured = capsys.readouterr()
    assert "inspector (scripted): did not look" in captured.err
    assert "detector: wrong, the star is missing" in captured.err
    [picture] = json.loads(captured.out)["pictures"]
    assert {o["who"]: o["mark"] for o in picture["opinions"]} == {
        "The inspector (scripted)": "did not look",
        "The detector": "wrong",
    }
    assert load_trajectory(tmp_path).provenance["detector"]["correct"] is False
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What to expect" in page and "believe the detector" in page


def test_an_edit_gets_no_verdict_of_its_prompt(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    source.write_bytes(encode_png(RING))
    argv = ["generate", "change the blue ring to red", "--image", str(source), "--flow-steps", "1"]
    out = ["--mode", "one-shot", "--checkpoint", "miniature:fresh", "--out", str(tmp_path / "out")]
    assert main([*argv, *out]) == 0
    assert verdict(load_trajectory(tmp_path / "out")) is None


def test_a_shipped_miniature_is_introduced_with_its_own_score() -> None:
    assert "in 100 were right" in expectation("miniature:staged")
    assert "in 100 were right" in expectation("miniature:base")
    for other in ("miniature:fresh", "runs/mine/checkpoint", "staged"):
        assert "Many of its pictures are wrong" in expectation(other)
