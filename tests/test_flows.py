"""How pictures are drawn: kept with a checkpoint, by what they are drawn onto."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from staged.backends.bagel import BagelPlayer
from staged.backends.bagel_settings import BagelSettings
from staged.engine.engine import Engine
from staged.generate.role_choice import open_engine
from staged.generate.settings import DrawSettings
from staged.model import checkpoint
from staged.model.flows import FLOWS, Flows, FlowSettings, Guidance, read_flows, write_flows
from staged.roles import StepRequest
from staged.shapes.miniature import CHECKPOINTS
from staged.trajectory import Inspection, Plan, Refinement, Trajectory

OWN = Flows(
    first=FlowSettings(num_flow_steps=2, timestep_shift=1.0),
    edit=FlowSettings(num_flow_steps=3, guidance=Guidance(text_scale=2.5, image_scale=2.0)),
    refinement=FlowSettings(num_flow_steps=4, guidance=Guidance(renorm="channel")),
)


def test_a_checkpoint_keeps_how_it_draws(tmp_path: Path) -> None:
    made = tiny.engine()
    checkpoint.save(
        tmp_path / "model",
        model=made.model,
        autoencoder=made.codec.autoencoder,
        tokenizer=made.tokenizer,
        flows=OWN,
    )
    assert checkpoint.load(tmp_path / "model").flows == OWN
    assert open_engine(str(tmp_path / "model")).flows == OWN


def test_without_the_file_every_picture_is_drawn_as_published(tmp_path: Path) -> None:
    assert read_flows(tmp_path) == Flows()


def test_shipped_miniatures_say_how_they_draw() -> None:
    for name in ("base", "staged"):
        assert read_flows(CHECKPOINTS / name).first.timestep_shift == 1.0


def test_what_has_no_meaning_is_named_with_its_key(tmp_path: Path) -> None:
    write_flows(OWN, tmp_path)
    text = (tmp_path / FLOWS).read_text(encoding="utf-8")
    (tmp_path / FLOWS).write_text(text.replace("num_flow_steps: 3", "num_flow_steps: 0"))
    with pytest.raises(ValueError, match="num_flow_steps is 0"):
        read_flows(tmp_path)
    (tmp_path / FLOWS).write_text(text.replace("refinement:", "refinment:"))
    with pytest.raises(ValueError, match=r"refinment.*refinement"):
        read_flows(tmp_path)


def requests() -> list[StepRequest]:
    """A first sketch, an edit by a plan, a refinement, and an edit of an input image."""
    plan = Plan(instruction="add a star", description="a star")
    first = Trajectory(prompt="a star", steps=(plan,))
    edit = Trajectory(prompt="a star", steps=(plan, tiny.sketch(0), plan))
    judged = Inspection(target="sketch", verdict="revise", critique="no star")
    refined = Refinement(instruction="draw it")
    refinement = Trajectory(prompt="a star", steps=(plan, tiny.sketch(0), judged, refined))
    given = Trajectory(prompt="a star", inputs=(tiny.sketch(1).image,))
    return [
        StepRequest(trajectory=trajectory, moves=("sketch",), seed=seed)
        for seed, trajectory in enumerate((first, edit, refinement, given))
    ]


def test_each_kind_of_picture_is_drawn_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    player = BagelPlayer(tiny.engine(), BagelSettings(flows=OWN))
    used: list[tuple[int, FlowSettings]] = []
    begin = Engine.begin

    def watching(self: Engine, *args: object, seeds: list[int], **kwargs: object) -> object:
        used.extend(zip(seeds, kwargs["settings"], strict=True))  # type: ignore[call-overload]
        return begin(self, *args, seeds=seeds, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "begin", watching)
    drawn = player.draw(requests())
    assert dict(used) == {0: OWN.first, 1: OWN.edit, 2: OWN.refinement, 3: OWN.edit}
    assert [sketch.num_flow_steps for sketch in drawn] == [2, 3, 4, 3]  # type: ignore[union-attr]
    assert player.num_flow_steps == 4


def test_previews_are_told_under_the_number_of_their_ask() -> None:
    player = BagelPlayer(tiny.engine(), BagelSettings(flows=OWN, preview_every=1))
    seen: set[tuple[int, int]] = set()
    player.draw(requests(), lambda row, step, pixels: seen.add((row, step)))
    assert {row for row, _ in seen} == {0, 1, 2, 3}
    assert max(step for row, step in seen if row == 2) > max(s for row, s in seen if row == 0)


def test_a_change_reaches_every_kind() -> None:
    changed = OWN.each(lambda flow: replace(flow, timestep_shift=2.0))
    assert {f.timestep_shift for f in vars(changed).values()} == {2.0}
    assert changed.edit.guidance == OWN.edit.guidance


FORESEEING = FlowSettings(num_flow_steps=4, forecast=(None, 0.0, None, 1.5))


def test_a_forecast_is_of_one_grid_guidance_and_weights(tmp_path: Path) -> None:
    flows = replace(OWN, first=FORESEEING)
    write_flows(flows, tmp_path)
    assert read_flows(tmp_path) == flows
    assert (flows.first.num_evaluations, flows.num_evaluations) == (2, 4)
    for changes in ({"num_flow_steps": 4}, {"timestep_shift": 2.0}, {"guidance": Guidance()}):
        changed = FORESEEING.otherwise(**changes)
        assert changed.forecast == () and changed == replace(FORESEEING, forecast=(), **changes)
    assert FORESEEING.otherwise() is FORESEEING
    assert DrawSettings(checkpoint="miniature:base").flow(FORESEEING) == FORESEEING
    assert (
        DrawSettings(checkpoint="miniature:base", num_flow_steps=4).flow(FORESEEING).num_evaluations
        == 4
    )
    assert (
        DrawSettings(checkpoint="miniature:base", guidance_scale=2.0).flow(FORESEEING).forecast
        == ()
    )
    assert flows.for_other_weights() == replace(flows, first=replace(FORESEEING, forecast=()))
    # What was drawn before there were any goes on.
    assert "first.forecast" in flows.facts() and "edit.forecast" not in flows.facts()


@pytest.mark.parametrize(
    ("forecast", "words"),
    [
        ([None, 1.0], "forecast has 2 entries for 3 flow steps; give one for each, or none"),
        ([1.0, None, None], "forecast: the first step has none before it; let it be null"),
        ([None, 1.0, 99.0], "forecast: 99.0; give -16 to 16"),
    ],
)
def test_a_forecast_that_cannot_be_is_refused(
    tmp_path: Path, forecast: list[float | None], words: str
) -> None:
    (tmp_path / FLOWS).write_text(json.dumps({"edit": {"num_flow_steps": 3, "forecast": forecast}}))
    with pytest.raises(ValueError, match=re.escape(words)):
        read_flows(tmp_path)
