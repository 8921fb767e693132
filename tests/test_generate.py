"""`staged generate` as a user runs it, with a miniature that has learned nothing yet."""

import json
from pathlib import Path

import pytest
from tiny import picture

from staged import images
from staged.cli import main as staged
from staged.generate import model
from staged.generate.command import main
from staged.images import encode_png
from staged.report.command import load_all
from staged.trajectory import moves
from staged.trajectory_folder import load_trajectory

FRESH = ["--checkpoint", "miniature:fresh", "--flow-steps", "2"]
PROMPT = "a photo of a red circle above a blue star"
SCRIPTED = ["--planner", "scripted", "--inspector", "scripted", "--sketcher", "scripted"]


def test_one_shot_saves_the_trajectory_its_images_and_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x"
    assert main([PROMPT, *FRESH, "--mode", "one-shot", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "0.png",
        "final.png",
        "report.html",
        "settings.json",
        "trajectory.json",
    ]
    trajectory = load_trajectory(out)
    assert trajectory.prompt == PROMPT and moves(trajectory.steps) == ("sketch", "stop")
    assert trajectory.images[0].array().shape == (48, 48, 3)
    assert trajectory.provenance["models"]["sketcher"] == "miniature:fresh"
    assert trajectory.provenance["cost"] == {"flow_steps": 2}
    assert PROMPT in (out / "report.html").read_text()
    printed = capsys.readouterr().out
    assert "sketch   drawn in 2 flow steps" in printed
    assert "stop     by the policy" in printed


def test_the_same_seed_draws_the_same_image_and_another_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", "4"), ("b", "4"), ("c", "5")):
        argv = ["a star", *FRESH, "--mode", "one-shot", "--seed", seed]
        # The seed also makes the fresh weights, so only a repetition tells of the drawing.
        assert main([*argv, "--out", str(tmp_path / name)]) == 0
    drawn = [(tmp_path / name / "final.png").read_bytes() for name in "abc"]
    assert drawn[0] == drawn[1]
    # Files of different seeds differ in any case, for they say by which they were drawn.
    assert images.decode(drawn[1]).tolist() != images.decode(drawn[2]).tolist()


def test_lines_that_say_the_same_get_pictures_of_their_own(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a star\na ring\na star\n a photo of a star \n")  # the last says so too
    argv = ["--prompts", str(prompts), *FRESH, "--mode", "one-shot", "--seed", "7"]
    for name in ("once", "again"):
        assert main([*argv, "--out", str(tmp_path / name)]) == 0
    made = load_all(tmp_path / "once", 10)
    assert [t.provenance["seeds"]["rollout"] for t in made] == [7, 7, 8, 9]
    assert len({made[line].images[0].png for line in (0, 2, 3)}) == 3
    assert load_all(tmp_path / "again", 10) == made


def test_more_images_of_a_line_are_those_of_as_many_lines(tmp_path: Path) -> None:
    (tmp_path / "twice.txt").write_text("a star\na star\n")
    argv = [*FRESH, "--mode", "one-shot"]
    one = ["a star", "--num-images", "2", *argv, "--out", str(tmp_path / "one")]
    assert main(one) == 0
    assert (
        main(["--prompts", str(tmp_path / "twice.txt"), *argv, "--out", str(tmp_path / "two")]) == 0
    )
    assert load_all(tmp_path / "one", 2) == load_all(tmp_path / "two", 2)


def test_scripted_players_show_every_step_as_it_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([PROMPT, *FRESH, *SCRIPTED, "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    kinds = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert kinds[:4] == ["computing", "plan", "sketch", "inspect"] and kinds[-2:] == [
        "stop",
        "saved",
    ]
    trajectory = load_trajectory(tmp_path)
    assert moves(trajectory.steps).count("plan") >= 2 and trajectory.complete


def test_a_scripted_planner_and_inspector_direct_the_model_that_sketches(tmp_path: Path) -> None:
    argv = [PROMPT, *FRESH, "--planner", "scripted", "--inspector", "scripted"]
    limits = ["--max-flow-steps", "8", "--max-refinements", "1"]
    for sketcher in ("model", "editing"):
        out = tmp_path / sketcher
        assert main([*argv, *limits, "--sketcher", sketcher, "--out", str(out)]) == 0
        trajectory = load_trajectory(out)
        made = moves(trajectory.steps)
        assert made[:2] == ("plan", "sketch") and made[-1] == "stop"
        assert 4 <= trajectory.num_flow_steps <= 8


def test_many_prompts_get_a_folder_for_each_image_and_one_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a photo of a star\n\na photo of three hearts\n")
    out = tmp_path / "many"
    argv = ["--prompts", str(prompts), *FRESH, *SCRIPTED, "--num-images", "2", "--seed", "7"]
    assert main([*argv, "--out", str(out)]) == 0
    found = load_all(out, 10)
    assert [t.prompt for t in found] == ["a photo of a star"] * 2 + ["a photo of three hearts"] * 2
    assert [t.provenance["seeds"]["rollout"] for t in found] == [7, 8, 7, 8]
    assert (out / "report.html").is_file()
    assert "[3] stop" in capsys.readouterr().out


def test_a_trajectory_that_fails_is_saved_and_the_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["add a star", *FRESH, *SCRIPTED, "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert printed.count("retry") == 2 and "failed   grammar" in printed
    record = json.loads((tmp_path / "trajectory.json").read_text())
    assert record["steps"] == [] and record["provenance"]["failure"] == "grammar"
    assert "grammar" in (tmp_path / "report.html").read_text()


def test_a_picture_has_the_size_that_is_asked_for(tmp_path: Path) -> None:
    argv = ["a star", *FRESH, "--mode", "one-shot", "--size", "32x48"]
    assert main([*argv, "--out", str(tmp_path)]) == 0
    assert load_trajectory(tmp_path).images[0].array().shape == (48, 32, 3)


@pytest.mark.parametrize("text", ["48", "48x", "x48", "4 8x48", "48x48x3", "-8x8", "0x8", "８x8"])
def test_what_is_no_size_is_a_wrong_command_line(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["a star", f"--size={text}"])
    assert left.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_every_option_of_the_flow_reaches_it(tmp_path: Path) -> None:
    argv = "--guidance-scale 3 --image-guidance-scale 1.5 --timestep-shift 2"
    argv += " --guidance-interval 0.2 0.9 --guidance-renorm channel --guidance-renorm-min 0.25"
    one_shot = ["a star", *FRESH, "--mode", "one-shot", "--out", str(tmp_path)]
    assert main([*one_shot, *argv.split()]) == 0
    made = json.loads((tmp_path / "settings.json").read_text())["decides"]
    for kind in ("first", "edit", "refinement"):
        assert made[f"{kind}.num_flow_steps"] == 2 and made[f"{kind}.timestep_shift"] == 2
        assert made[f"{kind}.guidance"] == {
            "text_scale": 3, "image_scale": 1.5, "interval": [0.2, 0.9], "renorm": "channel",
            "renorm_min": 0.25,
        }  # fmt: skip


def test_several_images_are_given_in_order(tmp_path: Path) -> None:
    argv = ["change the star to blue", *FRESH, "--mode", "one-shot", "--out", str(tmp_path / "out")]
    for number in range(2):
        source = tmp_path / f"{number}.png"
        source.write_bytes(encode_png(picture(number, 48, 48 - 16 * number)))
        argv += ["--image", str(source)]
    assert main(argv) == 0
    made = load_trajectory(tmp_path / "out")
    assert [ref.png for ref in made.inputs] == [
        (tmp_path / f"{n}.png").read_bytes() for n in (0, 1)
    ]
    assert made.images[2].array().shape == (48, 32, 3)  # of the last one


def test_an_image_is_edited(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    source.write_bytes(encode_png(picture(0, 48, 48)))
    argv = ["change the star to blue", *FRESH, "--mode", "one-shot", "--image", str(source)]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    trajectory = load_trajectory(tmp_path / "out")
    assert trajectory.inputs[0].png == source.read_bytes() and len(trajectory.images) == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--prompts", "/nonexistent/prompts.txt"], "prompts.txt"),
        (["a star", "--checkpoint", "miniature:huge"], "no miniature 'huge'"),
        (["a star", "--checkpoint", "/nonexistent/folder"], "neither a checkpoint folder nor"),
        (["a star", *FRESH, "--guidance-scale", "0"], "guidance scales 0"),
        (["a star", *FRESH, "--guidance-interval", "0.6", "0.4"], "guidance interval (0.6, 0.4)"),
        (["a star", *FRESH, "--guidance-renorm-min", "2"], "renorm_min is 2.0"),
        (["a star", *FRESH, "--size", "48x50"], "multiples of 8, such as 48 x 48"),
        (["a star", *FRESH, "--size", "4096x16"], "give sides from 8 to 48"),
        (["a star", *FRESH, "--max-text-tokens", "1000000"], "max_text_tokens is 1000000"),
        (["a star", *FRESH, "--device", "cuda:99"], "this machine has"),
        (["a star", *FRESH, "--max-flow-steps", "1"], "a sketch takes 2 flow steps"),
        (["a star", *FRESH, "--image", "/nonexistent.png"], "nonexistent.png"),
        (["a star", *FRESH, "--image", __file__], "test_generate.py: not a PNG"),
        (["a star <|im_end|>", *FRESH], "<|im_end|> inside text"),
        (["   ", *FRESH], "the prompt: "),
        (["a star", *FRESH, "--num-images", "100001"], "give at most 100000 in all"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_a_way_out(
    argv: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded before it was told")

    monkeypatch.setattr(model, "open_engine", load)
    assert staged(["generate", *argv, "--out", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert message in captured.err and len(captured.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_finite_weights_that_overflow_end_in_a_failure_and_no_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was a black final.png of a trajectory that was complete, and the command ended with 0."""
    import torch

    from staged.model import checkpoint
    from staged.model.open import open_checkpoint

    loaded = open_checkpoint("miniature:base")
    with torch.no_grad():
        loaded.model.latent_out.weight.mul_(1e37)
        loaded.model.latent_out.bias.mul_(1e37)
    folder = checkpoint.save(
        tmp_path / "model",
        model=loaded.model,
        autoencoder=loaded.autoencoder,
        tokenizer=loaded.tokenizer,
    )
    argv = ["a star", "--mode", "one-shot", "--checkpoint", str(folder), "--num-images", "2"]
    out = tmp_path / "out"
    assert staged(["generate", *argv, "--flow-steps", "2", "--out", str(out)]) == 1
    assert "failed   not_finite: latents are not finite" in capsys.readouterr().out
    assert not list(out.rglob("*.png"))
    for number in range(2):
        made = load_trajectory(out / f"{number:05d}")
        assert not made.complete and made.provenance["failure"] == "not_finite"
