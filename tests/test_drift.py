"""Drift of edits: what is measured, against scenes that are rendered or moved by known amounts."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from data_pipelines import job
from data_pipelines.__main__ import main
from data_pipelines.drift.limits import DriftLimits
from data_pipelines.drift.measure import measure
from data_pipelines.drift.realign import realigned
from data_pipelines.drift.registration import NO_MOTION, Motion
from data_pipelines.drift.steady import steadied
from data_pipelines.drift.told import drawn_moved, drift_in_words
from data_pipelines.plan_sketch.build import TrajectoryBuilder
from data_pipelines.plan_sketch.settings import Critiques, Gate, PlanSketchSettings
from data_pipelines.prompts import Prompts
from data_pipelines.reader import open_lmm
from data_pipelines.reasons import reason_in_words
from data_pipelines.runner import Work
from data_pipelines.services import PricedEditor, Services
from data_pipelines.summary import JobSummary
from data_pipelines.wording import Wording
from staged import images
from staged.jobs.ledger import Ledger
from staged.jobs.rank import Rank
from staged.jobs.records import Records
from staged.jobs.results import UnitResult
from staged.roles import Pixels
from staged.shapes.players.editor import NO_MISTAKES, ShapesEditor
from staged.shapes.world.render import render
from staged.shapes.world.scene import CANVAS_PX, Color, Kind, Scene, Shape
from staged.shards import read_manifest, read_shards
from staged.trajectory import Sketch, Trajectory


def shape(kind: Kind, color: Color, x: int, y: int) -> Shape:
    return Shape(kind=kind, color=color, size="small", x=x, y=y)


THREE = (
    shape("heart", "red", 14, 15),
    shape("star", "blue", 31, 22),
    shape("square", "green", 17, 34),
)
ADDED = shape("circle", "yellow", 35, 37)


def picture(*shapes: Shape, right: int = 0, down: int = 0) -> Pixels:
    moved = (replace(one, x=one.x + right, y=one.y + down) for one in shapes)
    return render(Scene(shapes=tuple(moved)))


def warped(pixels: Pixels, motion: Motion) -> Pixels:
    """What an editor would give that moves everything so: an account of its own, by splines."""
    matrix, offset = motion.matrix(*pixels.shape[:2])
    back = np.linalg.inv(matrix)
    planes = [
        ndimage.affine_transform(plane.astype(float), back, -back @ offset, mode="nearest")
        for plane in np.moveaxis(pixels, -1, 0)
    ]
    return np.clip(np.rint(np.stack(planes, -1)), 0, 255).astype(np.uint8)


def tinted(pixels: Pixels, *levels: int) -> Pixels:
    return np.clip(pixels.astype(int) + levels, 0, 255).astype(np.uint8)


def test_an_added_object_is_no_drift() -> None:
    drift = measure(picture(*THREE), picture(*THREE, ADDED))
    assert drift.motion == NO_MOTION and drift.moved == 0
    assert drift.most_tint < 0.1 and drift.found == 1
    assert abs(drift.contrast - 1) < 0.02 and abs(drift.detail - 1) < 0.02
    area = np.any(picture(ADDED) != picture(), -1).mean()
    assert area * 0.8 < drift.edited < area * 2
    assert not list(DriftLimits().exceeded(drift))


@pytest.mark.parametrize(
    "after",
    [
        (THREE[0], THREE[1], replace(THREE[2], color="purple")),
        (THREE[0], THREE[1], replace(THREE[2], kind="ring")),
        THREE[:2],
        (THREE[0], THREE[1], replace(THREE[2], x=38, y=38)),
    ],
    ids=["recoloured", "replaced", "removed", "moved"],
)
def test_what_one_thing_is_told_to_become_is_no_drift(after: tuple[Shape, ...]) -> None:
    drift = measure(picture(*THREE), picture(*after))
    assert drift.motion == NO_MOTION and drift.most_tint < 0.5
    assert not list(DriftLimits().exceeded(drift))


@pytest.mark.parametrize(("right", "down"), [(1, 0), (-2, 1), (3, -4)])
def test_a_shift_under_an_edit_is_found_to_a_tenth_of_a_pixel(right: int, down: int) -> None:
    after = tinted(picture(*THREE, ADDED, right=right, down=down), 6, -3, 8)
    drift = measure(picture(*THREE), after)
    assert drift.motion.right * CANVAS_PX == pytest.approx(right, abs=0.1)
    assert drift.motion.down * CANVAS_PX == pytest.approx(down, abs=0.1)
    assert (drift.motion.zoom, drift.motion.turn_deg) == (1, 0)
    assert drift.tint == pytest.approx((6, -3, 8), abs=1)


@pytest.mark.parametrize("motion", [Motion(zoom=1.06), Motion(zoom=0.92, turn_deg=-2, right=0.02)])
def test_zoom_and_turn_under_an_edit_are_found(motion: Motion) -> None:
    drift = measure(picture(*THREE), warped(picture(*THREE, ADDED), motion))
    assert drift.motion.zoom == pytest.approx(motion.zoom, abs=0.005)
    assert drift.motion.turn_deg == pytest.approx(motion.turn_deg, abs=0.25)
    assert drift.motion.right == pytest.approx(motion.right, abs=0.003)
    assert drift.explained > 0.2
    named = [name for name, _ in DriftLimits(max_detail=None).exceeded(drift)]
    assert "zoom" in named and "tint" not in named


def test_softer_and_paler_pictures_are_told_from_edits() -> None:
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(size=(160, 128, 3)), (1.2, 1.2, 0))
    before = np.clip(128 + 90 * noise / noise.std() / 2, 0, 255).astype(np.uint8)
    after = before.copy()
    after[20:70, 30:90] = (200, 30, 40)
    soft = ndimage.gaussian_filter(after, (1, 1, 0))
    pale = (128 + 0.7 * (after - 128.0)).astype(np.uint8)
    plain, softer, paler = (measure(before, one) for one in (after, soft, pale))
    assert plain.detail == pytest.approx(1, abs=0.03)
    assert plain.contrast == pytest.approx(1, abs=0.03)
    assert softer.detail < 0.6 and paler.contrast == pytest.approx(0.7, abs=0.06)
    assert plain.edited == pytest.approx(50 * 60 / (160 * 128), abs=0.05)


def test_a_shift_by_whole_pixels_is_undone_without_a_trace() -> None:
    before = picture(*THREE)
    after = picture(*THREE, ADDED, right=2, down=-1)
    back, undone = realigned(before, after, measure(before, after))
    assert (undone.right * CANVAS_PX, undone.down * CANVAS_PX) == (2, -1)
    assert np.array_equal(back, picture(*THREE, ADDED))


def test_what_cannot_be_undone_is_refused_with_a_reason_of_its_own() -> None:
    before, limits = picture(*THREE), DriftLimits(from_first=None)

    def of(after: Pixels, limits: DriftLimits = limits) -> tuple[str, dict[str, object]]:
        pngs = images.encode_png(before), images.encode_png(after)
        done = steadied(limits, None, *pngs)
        assert (done.image == pngs[1]) == ("realigned" not in done.noted)
        return done.objection.reason if done.objection else "", done.noted

    reason, noted = of(picture(*THREE, ADDED, right=2))
    assert not reason and noted["moved"] == 0
    assert noted["realigned"]["undone"]["right"] == pytest.approx(2 / 48)  # type: ignore[index]
    assert of(picture(*THREE, right=2), replace(limits, realign=False))[0] == "drift: shift"
    assert of(picture(*THREE, right=6))[0] == "drift: shift"
    assert of(tinted(picture(*THREE, ADDED), 14, 0, 0))[0] == "drift: tint"
    assert of(picture(ADDED), replace(limits, min_found=0.5))[0] == "drift: drawn anew"
    assert of(before[:-1])[0] == "drift: size"
    assert reason_in_words("draw", "drift: tint").endswith("the colours of the whole picture")
    said = reason_in_words("draw", "drift from the first: zoom")
    assert said.endswith("made the whole picture larger or smaller since the first one")


@pytest.mark.parametrize(
    "noted",
    [
        *(0.3, None, "no", {"moved": 1}, [1], ["moved"], [{"moved": 1}], [{"moved": "1"}]),
        *([{"moved": 1, "tint": 2}], [{"moved": 1, "tint": ["red"]}]),
        *([{"moved": 1, "tint": [0], "realigned": r}] for r in (None, {}, {"drawn": 1})),
    ],
    ids=str,
)
def test_drift_that_others_noted_in_their_own_way_is_passed_over(noted: object) -> None:
    foreign = Trajectory(prompt="a star", steps=(), provenance={"drift": noted})
    assert drawn_moved(foreign) == 0 and drift_in_words(foreign) == ""
    if isinstance(noted, list):
        own = {"moved": 0.25, "tint": [1.0, -3.0, 0.0]}
        both = replace(foreign, provenance={"drift": [*noted, own]})
        assert drift_in_words(both) == "moved 25.00% at most, colours 3 of 255"


def test_what_each_step_may_do_adds_up_against_the_first() -> None:
    start, limits = picture(*THREE), DriftLimits(from_first=1.5)
    before, told = start, []
    for _ in range(3):
        after = tinted(before, 0, 8, 0)
        first = None if before is start else images.encode_png(start)
        done = steadied(limits, first, images.encode_png(before), images.encode_png(after))
        told.append(done.objection.reason if done.objection else "")
        before = after
    assert told == ["", "drift from the first: tint", "drift from the first: tint"]
    assert done.noted["tint"][1] == pytest.approx(8, abs=0.5)
    assert done.noted["from_first"]["tint"][1] == pytest.approx(24, abs=1)


class Unsteady(ShapesEditor):
    """The miniature world's editor with a hand that shakes, by the seed."""

    def edit(
        self, image: Pixels | None, instruction: str, *, width: int, height: int, seed: int
    ) -> Pixels:
        drawn = super().edit(image, instruction, width=width, height=height, seed=seed)
        if image is None:
            return drawn
        rng = random.Random(seed)
        if rng.random() < 0.3:
            return tinted(drawn, 18, 18, 0)
        right, down = rng.choice([(1, 0), (0, -2), (0, 0)])
        rows = np.clip(np.arange(height) - down, 0, height - 1)
        return drawn[rows][:, np.clip(np.arange(width) - right, 0, width - 1)]


def run(settings: PlanSketchSettings, folder: Path) -> JobSummary:
    """The job as the command runs it, with that editor."""
    prompt_of = settings.prompts.of_units(settings.seed)

    @asynccontextmanager
    async def working(ledger: Ledger) -> AsyncIterator[Work]:
        async with open_lmm(None, settings.misbehaviour, ledger) as lmm:
            drawing = PricedEditor(
                editor=Unsteady(mistakes=NO_MISTAKES),
                deciding={},
                width=CANVAS_PX,
                height=CANVAS_PX,
            )

            async def work(unit: int) -> UnitResult:
                services = Services(lmm=lmm, drawing=drawing, ledger=ledger)
                wording, prompt = Wording({}), prompt_of(unit)
                builder = TrajectoryBuilder(
                    settings, wording, services, prompt, {}, lambda graph: True
                )
                return await builder.build()

            yield work

    return job.run_job(
        settings, folder, working=working, prompt_of=prompt_of, rank=Rank(), retry_failed=False
    )


def test_a_job_lays_back_what_it_can_and_draws_the_rest_again(tmp_path: Path) -> None:
    gate = Gate(drift=DriftLimits(from_first=None), attempts=3)
    plain = Critiques(inspect="nothing")
    settings = replace(
        PlanSketchSettings(prompts=Prompts(count=4)), gate=gate, critiques=plain, concurrency=4
    )
    report = run(settings, tmp_path / "data")
    assert report.accepted >= 2
    samples = list(read_shards(tmp_path / "data"))
    noted = [one for sample in samples for one in sample.trajectory.provenance.get("drift", [])]
    laid = [one for one in noted if "realigned" in one]
    assert laid and all(one["moved"] < 0.01 for one in noted)
    for sample in samples:
        steps, places = sample.trajectory.steps, sample.trajectory.provenance.get("drift", [])
        assert all(isinstance(steps[one["place"]], Sketch) for one in places)
    refused = [
        one for sample in samples for one in sample.trajectory.provenance.get("refused_edits", [])
    ]
    assert any(one["reason"] == "drift: tint" for one in refused)
    # Nobody was asked about what had drifted, and what was laid back is in the ledger.
    costs = Records(tmp_path / "data" / job.LEDGER).costs()
    assert costs["judge_step"]["calls"] < costs["images"]["calls"]
    assert costs["realigned image"]["calls"] >= len({str(one) for one in laid}) // 2
    counted = read_manifest(tmp_path / "data").stats["drift"]
    assert sum(counted["moved"].values()) == len(noted)
    assert counted["realigned"] == {"yes": len(laid), "no": len(noted) - len(laid)}
    page = tmp_path / "page.html"
    assert main(["preview", str(tmp_path / "data"), "--out", str(page), "--moved", "1"]) == 0
    text = page.read_text(encoding="utf-8")
    assert "How far edits moved the whole picture" in text and "laid back" in text
    assert "an edit that moved all by 1.00% or more" in text
    with pytest.raises(ValueError, match="moved all by 90"):
        main(["preview", str(tmp_path / "data"), "--moved", "90"])


def test_a_job_without_limits_is_the_job_that_it_was() -> None:
    settings = PlanSketchSettings()
    assert "drift" not in settings.deciding["gate"]
    measured = replace(settings, gate=replace(settings.gate, drift=DriftLimits()))
    assert measured.fingerprint != settings.fingerprint
    assert measured.deciding["gate"]["drift"]["max_shift"] == DriftLimits().max_shift
    for wrong in ({"max_shift": -0.1}, {"from_first": 0.5}, {"min_found": 2.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DriftLimits(**wrong)  # type: ignore[arg-type]
