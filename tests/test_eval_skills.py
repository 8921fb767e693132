"""Skills one by one: probes that a perfect player passes and an idle one fails."""

import json
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Literal

import pytest

from eval.skills.command import main
from eval.skills.guidance import main as tune
from eval.skills.judge import judge
from eval.skills.probes import MANNERS, Manner, Probe, probes
from staged.model.flows import FLOWS, Flows, FlowSettings, Guidance, read_flows, write_flows
from staged.roles import RoleError
from staged.shapes.drills import VERBS
from staged.shapes.miniature import CHECKPOINTS, fresh
from staged.shapes.tasks import Split
from staged.shapes.world.render import render
from staged.shapes.world.spec import Spec
from staged.shapes.world.splits import held_out_pair, is_held_out
from staged.trajectory import ImageRef, Inspection, Sketch, Step

QUICK = ["--checkpoint", "miniature:fresh", "--num-per-skill", "1"]


@cache
def asked(manner: Manner, split: Split = "test", number: int = 6) -> tuple[Probe, ...]:
    return tuple(probes(num_per_skill=number, split=split, manner=manner, seed=3))


def perfect(probe: Probe) -> Step:
    if probe.move == "inspect sketch":
        return verdict("revise" if probe.wrong else "accept")
    return Sketch(image=ImageRef.from_array(render(probe.scene)), num_flow_steps=1)


def verdict(said: Literal["accept", "revise"]) -> Inspection:
    critique = "the star is not red" if said == "revise" else "all is there"
    return Inspection(target="sketch", verdict=said, critique=critique)


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_perfect_player_passes_every_probe(manner: Manner, split: Split) -> None:
    found = asked(manner, split)
    assert {"draw", *VERBS} <= {probe.skill for probe in found}
    for probe in found:
        outcome = judge(probe, perfect(probe))
        assert outcome.right and all(outcome.kept), (probe.skill, probe.trajectory.prompt)


def test_who_draws_the_same_picture_again_keeps_all_and_edits_nothing() -> None:
    edits = [probe for probe in asked("request") if probe.skill in VERBS]
    right = Counter[str]()
    for probe in edits:
        again = Sketch(image=probe.trajectory.images[-1], num_flow_steps=1)
        outcome = judge(probe, again)
        right[probe.skill] += outcome.right
        assert all(outcome.kept), probe.trajectory.prompt
    assert right == Counter({"keep": 6})


def test_who_always_refuses_sees_every_fault_and_nothing_right() -> None:
    looks = [probe for probe in asked("stage") if probe.move == "inspect sketch"]
    assert any(probe.wrong for probe in looks) and not all(probe.wrong for probe in looks)
    for probe in looks:
        assert judge(probe, verdict("revise")).right == (probe.skill != "see right")


def test_a_step_that_failed_is_none() -> None:
    for probe in asked("stage"):
        assert not judge(probe, RoleError("no end")).right


def test_a_base_is_asked_for_nothing_that_it_was_never_taught() -> None:
    assert {probe.move for probe in asked("request")} == {"sketch"}
    assert not [probe for probe in asked("request") if probe.trajectory.steps]


def test_training_scenes_hold_nothing_that_training_never_shows() -> None:
    for probe in asked("stage", "train"):
        assert not any(held_out_pair(shape.color, shape.kind) for shape in probe.scene.shapes)
    held = [p for p in asked("request") if p.skill == "draw"]
    assert all(is_held_out(Spec.from_scene(p.scene)) for p in held)


def test_one_command_asks_all_of_it_and_repeats_itself(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINTS / "staged", checkpoint)
    shutil.copy(CHECKPOINTS / "ae.safetensors", checkpoint)
    # Two steps show as well as the checkpoint's twenty that it is all asked, and alike.
    write_flows(read_flows(checkpoint).each(lambda f: f.otherwise(num_flow_steps=2)), checkpoint)
    results = []
    for name in "ab":
        line = ["--checkpoint", str(checkpoint), "--num-per-skill", "1"]
        assert main([*line, "--manner", "stage", "--out", str(tmp_path / name)]) == 0
        results.append(json.loads((tmp_path / name / "result.json").read_text()))
    assert results[0] == results[1]
    assert {"draw", "see right", *VERBS} <= set(results[0]["samples"])
    assert results[0]["variant"]["manner"] == "stage"


def test_guidance_is_tuned_by_kind_and_kept_with_the_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from staged.model import checkpoint

    loaded = fresh(0)
    folder = tmp_path / "checkpoint"
    checkpoint.save(
        folder, model=loaded.model, autoencoder=loaded.autoencoder, tokenizer=loaded.tokenizer
    )
    before = Flows(first=FlowSettings(guidance=Guidance(text_scale=3.0)))
    write_flows(before, folder)
    line = ["--checkpoint", str(folder), "--num-per-skill", "1", "--flow-steps", "1", "--keep",
            "--tune", "edit", "--text", "1.25", "2", "--image", "1.75",
            "--out", str(tmp_path / "out")]  # fmt: skip
    assert tune(line) == 0
    kept = read_flows(folder)
    assert kept == read_flows(tmp_path / "out")
    assert kept.first == before.first and kept.refinement == before.refinement
    assert kept.edit.guidance.image_scale == 1.75 and kept.edit.guidance.text_scale in (1.25, 2)
    assert kept.edit.num_flow_steps == before.edit.num_flow_steps  # fewer were for the trials
    assert "<- best" in capsys.readouterr().out


def test_refinements_are_none_of_a_bases(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--manner stage"):
        tune([*QUICK, "--tune", "refinement", "--out", str(tmp_path / "out")])
    with pytest.raises(ValueError, match="miniature:fresh is none"):
        tune([*QUICK, "--keep", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out" / FLOWS).exists()
