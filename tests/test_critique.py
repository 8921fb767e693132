"""The critique job: a checkpoint's own steps, judged, put right, and gone on from."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ranks import Command
from test_drift import Unsteady

from data_pipelines.critique.job import run_job
from data_pipelines.critique.settings import Corrections, CritiqueSettings, Learned
from data_pipelines.drawing import DrawingSettings
from data_pipelines.drift.limits import DriftLimits
from data_pipelines.editors import OwnEditors
from data_pipelines.job import LEDGER
from data_pipelines.prompts import Prompts
from staged.backends.lmm.settings import LmmSettings
from staged.generate.settings import DrawSettings
from staged.jobs.budget import Budget
from staged.jobs.rank import Rank
from staged.jobs.records import Records
from staged.model.layout import SegmentKind
from staged.report import drawn_report
from staged.sequence import interleave
from staged.shapes import miniature
from staged.shapes.language.faults import PlanFault, instruction_faults, plan_faults
from staged.shapes.language.instructions import read_edits
from staged.shapes.language.prompts import read_description, read_prompt
from staged.shapes.players.editor import NO_MISTAKES
from staged.shapes.players.misbehaviour import Misbehaviour
from staged.shapes.sight.detect import detect
from staged.shapes.sight.verdict import satisfied
from staged.shapes.world.spec import Spec
from staged.shards import Sample, read_manifest, read_shards, validate
from staged.trajectory import Inspection, Plan, Refinement, Sketch

COUNT = 10
AS_IT_COMES = Learned(accepted_plans=None, accepted_sketches=None)


def job(count: int = COUNT, **changes: Any) -> CritiqueSettings:
    generator = DrawSettings(
        checkpoint="miniature:staged", num_flow_steps=6, max_rounds=3, dtype="float32"
    )
    prompts = Prompts(count=count, tasks={"color_attr": 1.0, "position": 1.0, "composition": 1.0})
    settings = CritiqueSettings(generator=generator, prompts=prompts, learned=AS_IT_COMES)
    return replace(settings, **changes)


def files(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.suffix in (".tar", ".json") and path.name != "settings.yaml"
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("critique") / "data"
    report = run_job(job(), out)
    assert report.accepted == COUNT and not report.failed
    return out


@pytest.fixture(scope="module")
def lessons(folder: Path) -> list[Sample]:
    return list(read_shards(folder))


def shows(plan: Plan, sketch: Sketch) -> bool:
    return satisfied(read_description(plan.description), detect(sketch.image.array())).exact


def turned_round(plan: Plan, said: Spec) -> Sequence[PlanFault]:
    """Where the instruction says otherwise than the description; words not of ours say nothing."""
    try:
        return instruction_faults(read_edits(plan.instruction), said)
    except ValueError:
        return ()


def test_what_is_wrong_is_seen_and_only_what_is_right_is_learned(lessons: list[Sample]) -> None:
    seen = {"accept": 0, "revise": 0}
    for sample in lessons:
        steps = sample.trajectory.steps
        asked = read_prompt(sample.trajectory.prompt).spec
        plan: Plan | None = None
        for index, step in enumerate(steps):
            if isinstance(step, Plan):
                plan = step
                if step.loss:
                    assert not plan_faults(read_description(step.description), asked)[0]
            if isinstance(step, Sketch) and step.loss:
                assert plan is not None and shows(plan, step)
            if isinstance(step, Inspection):
                before = steps[index - 1]
                assert plan is not None and step.loss
                if isinstance(before, Sketch):
                    assert (step.verdict == "accept") == shows(plan, before)
                    seen[step.verdict] += 1
                else:
                    said = read_description(plan.description)
                    faults = plan_faults(said, asked)[0] or turned_round(plan, said)
                    assert (step.verdict == "revise") == bool(faults)
                if step.verdict == "revise":
                    assert not before.loss
        assert steps[-1].loss, "what follows the last lesson only costs tokens"
    assert min(seen.values()) >= 3, seen


def test_it_goes_on_from_what_the_checkpoint_drew(lessons: list[Sample]) -> None:
    mended = later = 0
    for sample in lessons:
        trajectory = sample.trajectory
        makers = trajectory.provenance["makers"]
        assert len(makers) == len(trajectory.steps)
        drawn = [place for place, s in enumerate(trajectory.steps) if isinstance(s, Sketch)]
        for before, place in pairwise(drawn):
            step = trajectory.steps[place]
            if makers[before] == "model" and makers[place] == "editor" and step.loss:
                mended += isinstance(trajectory.steps[place - 1], Refinement)
            later += makers[before] == "editor" and makers[place] == "model"
        for place in drawn:
            step = trajectory.steps[place]
            assert isinstance(step, Sketch)
            assert (step.num_flow_steps > 0) == (makers[place] == "model")
            assert not (step.loss and makers[place] == "model")
    assert mended >= 2, "the refinement's picture is learned"
    assert later >= 1, "and the checkpoint goes on from it"


def test_judge_and_generator_are_recorded_apart(folder: Path, lessons: list[Sample]) -> None:
    assert validate(folder).ok
    for sample in lessons:
        models = sample.trajectory.provenance["models"]
        assert models["planner"] == models["sketcher"] == "miniature:staged"
        assert models["inspector"] == models["refiner"] == "shapes-lmm-1"
        assert models["editor"] == "shapes-editor-1"
        assert len(sample.trajectory.provenance["weights"]) == 64
    manifest = read_manifest(folder)
    assert manifest.settings["weights"] == lessons[0].trajectory.provenance["weights"]
    assert manifest.stats["models"]["inspector: shapes-lmm-1"] == len(lessons)


def test_training_takes_what_comes_out(lessons: list[Sample]) -> None:
    """Every lesson is legal, and something in it is supervised."""
    words = miniature.tokenizer()
    codec = miniature.fresh(0).codec
    pictures = 0
    for sample in lessons:
        found = interleave(
            sample.trajectory,
            words.encode,
            words.special,
            lambda ref: codec.grids(*ref.array().shape[:2]),
        )
        assert any(segment.supervised for segment in found.segments)
        pictures += sum(s.kind is SegmentKind.NOISED for s in found.segments)
    assert pictures >= 3
    drawn_report([sample.trajectory for sample in lessons])


@pytest.mark.slow
def test_neither_company_nor_processes_change_the_data(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "data"
    reports = [run_job(job(concurrency=3), out, rank=Rank(number=n, world_size=2)) for n in (1, 0)]
    assert [report.unfinished > 0 for report in reports] == [True, False]
    assert files(out) == files(folder)


@pytest.mark.slow
def test_a_killed_job_goes_on_to_the_same_data(tmp_path: Path, folder: Path) -> None:
    out, log = tmp_path / "data", tmp_path / "log"
    arguments = [
        "critique", f"prompts.count={COUNT}",
        "prompts.tasks={color_attr: 1, position: 1, composition: 1}",
        "generator={checkpoint: 'miniature:staged', num_flow_steps: 6, max_rounds: 3, "
        "dtype: float32}",
        "learned={accepted_plans: null, accepted_sketches: null}", "--out", str(out),
    ]  # fmt: skip
    command = Command(arguments, log)
    while command.running and lines(out) < 40:
        time.sleep(0.01)
    command.kill()
    assert not (out / "index.json").exists()
    assert Command(arguments, log).end() == 0, log.read_text()
    assert files(out) == files(folder)


def lines(out: Path) -> int:
    return sum(p.read_bytes().count(b"\n") for p in (out / LEDGER).glob("*.jsonl"))


def test_pictures_of_the_editor_that_drifted_are_laid_back_or_drawn_again(
    tmp_path: Path,
) -> None:
    """They went to the judge as they were, who is not asked about shifts."""

    class Shaky(OwnEditors):
        def open(self, drawing: DrawingSettings) -> Unsteady:
            return Unsteady(mistakes=NO_MISTAKES)

    limits = DriftLimits(from_first=None)
    corrections = Corrections(edits_by_editor=1.0, refined_by_model=0.0, drift=limits)
    report = run_job(job(2, corrections=corrections), out := tmp_path / "data", editors=Shaky())
    assert report.accepted == 2
    told = []
    for sample in read_shards(out):
        steps, said = sample.trajectory.steps, sample.trajectory.provenance
        noted = said.get("drift", [])
        drawn = [place for place, step in enumerate(steps) if isinstance(step, Sketch)]
        edited = [place for place in drawn if said["makers"][place] == "editor"]
        assert [one["place"] for one in noted] == edited
        told += noted
    assert any("realigned" in one for one in told), "some were laid back"
    assert all(one["moved"] < 0.01 and max(map(abs, one["tint"])) < 10 for one in told)
    assert Records(out / LEDGER).costs()["realigned image"]["calls"] > 0
    assert "drift" not in job().deciding["corrections"], "jobs that were begun go on"


def test_other_weights_and_other_settings_are_refused(tmp_path: Path, folder: Path) -> None:
    base = replace(job().generator, checkpoint="miniature:base")
    with pytest.raises(ValueError, match=r"generator\.checkpoint was 'miniature:staged' and is"):
        run_job(job(generator=base), folder)
    with pytest.raises(ValueError, match=r"weights: miniature:staged has [0-9a-f]{64}, and the"):
        run_job(job(weights="0" * 64), tmp_path / "data")


def test_a_judge_that_fails_is_no_lesson_and_can_be_asked_again(tmp_path: Path) -> None:
    out = tmp_path / "data"
    silent = job(2, misbehaviour=Misbehaviour(refusal=1.0))
    report = run_job(silent, out)
    assert report.failed == 2 and report.reasons == {"judge_plan": {"refusal": 2}}
    [*_, (_, result)] = Records(out / LEDGER).results()
    assert result.sample is not None and len(result.sample["steps"]) == 1


def test_a_budget_stops_a_job_and_more_of_it_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "data"
    report = run_job(job(2, budget=Budget(requests=3)), out)
    assert "budget.requests: 3 of 3" in report.stopped and report.unfinished
    assert not run_job(job(2, budget=Budget(requests=500)), out).unfinished
    assert Records(out / LEDGER).spent.requests < 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollouts": 0}, "rollouts is 0"),
        ({"generator": DrawSettings(checkpoint="a", mode="one-shot")}, "generator.mode is"),
        ({"generator": DrawSettings(checkpoint="a", inspector="scripted")}, "generator.inspector"),
        ({"generator": DrawSettings(checkpoint="a", inspect_plan="never")}, "inspect_plan: the"),
        ({"generator": DrawSettings(checkpoint="a", max_refinements=0)}, "max_refinements is 0"),
        ({"lmm": LmmSettings(model="gpt-4o")}, r"drawing\.editor: gpt-4o plans"),
    ],
)
def test_settings_that_make_no_critiques_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CritiqueSettings(**changes)


def test_shares_are_shares() -> None:
    with pytest.raises(ValueError, match=r"edits_by_editor is 1\.5"):
        Corrections(edits_by_editor=1.5)
    with pytest.raises(ValueError, match=r"accepted_sketches is -0\.1"):
        Learned(accepted_sketches=-0.1)


def test_what_came_later_and_is_not_used_decides_nothing() -> None:
    """Jobs that were begun before there was such a thing go on."""
    assert "quantization" not in job().deciding["generator"]
    rounded = replace(job(), generator=replace(job().generator, quantization="int8"))
    assert rounded.deciding["generator"]["quantization"] == "int8"
