"""Recipes of `staged generate`: upstream's numbers, beneath what the user says."""

import json
from pathlib import Path

import pytest
from tiny import picture

from staged.generate.command import main
from staged.generate.presets import PRESETS
from staged.generate.settings import DrawSettings
from staged.images import encode_png
from staged.model.flow import time_grid
from staged.model.flows import Flows, FlowSettings
from staged.shapes.miniature import FLOWS
from staged.trajectory import moves
from staged.trajectory_folder import load_trajectory

FRESH = ["--checkpoint", "miniature:fresh"]


def flow(name: str, **given: object) -> FlowSettings:
    """Of a recipe, over a checkpoint whose own ways are others throughout."""
    own = FLOWS.first
    return DrawSettings(checkpoint="x", **{**PRESETS[name].settings, **given}).flow(own)


def record(folder: Path) -> dict[str, object]:
    made: dict[str, object] = json.loads((folder / "settings.json").read_text())["decides"]
    return made


@pytest.mark.parametrize(
    ("name", "image_scale", "interval", "renorm", "guided"),
    [("t2i", 1.0, (0.4, 1.0), "global", 41), ("edit", 2.0, (0.0, 1.0), "text_channel", 49)],
)
def test_upstreams_recipes(
    name: str, image_scale: float, interval: tuple[float, float], renorm: str, guided: int
) -> None:
    made = flow(name)
    assert (made.num_flow_steps, made.timestep_shift) == (49, 3.0)
    guidance = made.guidance
    assert (guidance.text_scale, guidance.image_scale) == (4.0, image_scale)
    assert (guidance.interval, guidance.renorm, guidance.renorm_min) == (interval, renorm, 0.0)
    times = time_grid(made.num_flow_steps, made.timestep_shift).tolist()
    assert sum(map(guidance.at, times[:-1])) == guided


def test_options_beat_the_recipe_and_the_recipe_the_checkpoint() -> None:
    made = flow("edit", num_flow_steps=7, guidance_interval=(0.1, 0.9))
    assert made.num_flow_steps == 7 and made.guidance.interval == (0.1, 0.9)
    assert made.timestep_shift == 3.0 and made.guidance.renorm == "text_channel"
    assert flow("staged") == FLOWS.first and flow("staged", timestep_shift=2).timestep_shift == 2


def test_without_a_recipe_the_checkpoint_says_how_it_draws(tmp_path: Path) -> None:
    assert main(["a star", *FRESH, "--mode", "one-shot", "--out", str(tmp_path)]) == 0
    own = json.loads(json.dumps(FLOWS.facts()))
    assert own != json.loads(json.dumps(Flows().facts()))
    assert {name: record(tmp_path)[name] for name in own} == own


def test_a_recipe_draws_at_once(tmp_path: Path) -> None:
    argv = ["a star", *FRESH, "--preset", "t2i", "--flow-steps", "3", "--out", str(tmp_path)]
    assert main(argv) == 0
    made = load_trajectory(tmp_path)
    assert moves(made.steps) == ("sketch", "stop") and made.num_flow_steps == 3
    assert record(tmp_path)["first.timestep_shift"] == 3.0


def test_editing_draws_onto_the_image(tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(encode_png(picture(0, 48, 32)))
    argv = ["change the star to blue", *FRESH, "--image", str(tmp_path / "in.png")]
    recipe = ["--preset", "edit", "--flow-steps", "2", "--out", str(tmp_path / "out")]
    assert main([*argv, *recipe]) == 0
    made = load_trajectory(tmp_path / "out")
    assert moves(made.steps) == ("sketch", "stop")
    assert made.images[1].array().shape == (48, 32, 3)


def test_a_recipe_can_be_told_not_to(tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(encode_png(picture(0, 48, 48)))
    argv = ["describe the picture", "--checkpoint", "miniature:base", "--preset", "understand"]
    argv += ["--image", str(tmp_path / "in.png"), "--no-vision-only"]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    assert moves(load_trajectory(tmp_path / "out").steps) == ("answer", "stop")
    assert record(tmp_path / "out")["vision_only"] is False


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["a star", "--preset", "edit"], "--preset edit needs an --image"),
        (["a star", "--preset", "t2i", "--image", "in.png"], "takes no --image"),
        (["a star", "--preset", "bagel"], "invalid choice: 'bagel'"),
    ],
)
def test_a_recipe_for_something_else_is_a_wrong_command_line(
    argv: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from staged.cli import main as staged

    try:
        code = staged(["generate", *argv, "--out", str(tmp_path / "out")])
    except SystemExit as left:
        code = left.code
    assert code == 2 and told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
