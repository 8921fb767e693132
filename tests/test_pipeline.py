"""The plan-sketch job and the base diet: what they make, and that nothing else decides it."""

import asyncio
import hashlib
import random
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from ranks import Command

from data_pipelines.__main__ import main
from data_pipelines.base import BaseSettings
from data_pipelines.base import build as build_base
from data_pipelines.base import sample as sample_of_base
from data_pipelines.job import LEDGER
from data_pipelines.plan_sketch.job import run_job
from data_pipelines.plan_sketch.settings import Critiques, PlanSketchSettings, Steps
from data_pipelines.prompts import Prompts
from data_pipelines.runner import run
from data_pipelines.summary import JobSummary
from staged import settings as settings_of
from staged.backends.http.service import ServiceError
from staged.jobs.budget import Budget
from staged.jobs.ledger import Ledger
from staged.jobs.rank import Rank
from staged.jobs.records import Records
from staged.jobs.results import UnitResult
from staged.shapes.drills import VERBS
from staged.shapes.language.asked import read_request
from staged.shapes.language.phrases import GrammarError
from staged.shapes.language.prompts import read_description, read_prompt
from staged.shapes.players.editor import EditorMistakes
from staged.shapes.players.misbehaviour import Misbehaviour
from staged.shapes.sight.detect import detect, scene_from
from staged.shapes.sight.verdict import satisfied
from staged.shapes.world.scene import COLORS, KINDS
from staged.shapes.world.spec import Spec
from staged.shapes.world.splits import is_held_out
from staged.shards import Sample, read_manifest, read_shards, validate
from staged.trajectory import Answer, Inspection, Plan, Refinement, Sketch, Stop, Trajectory

COUNT = 24
PERFECT = EditorMistakes(wrong_side=0, wrong_color=0, wrong_kind=0, lost_object=0)


def job(count: int = COUNT, **changes: object) -> PlanSketchSettings:
    return replace(PlanSketchSettings(prompts=Prompts(count=count)), **changes)


def files(folder: Path) -> dict[str, str]:
    """What a reader of the data set gets, by name: shards, index, offsets."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.suffix == ".tar" or path.name in ("index.json", "offsets.json")
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("job") / "data"
    run_job(job(), out)
    return out


@pytest.fixture(scope="module")
def built(folder: Path) -> list[Sample]:
    return list(read_shards(folder))


def test_every_sample_ends_in_a_picture_of_its_prompt(folder: Path, built: list[Sample]) -> None:
    assert validate(folder).ok
    assert len(built) > COUNT // 2
    for sample in built:
        trajectory = sample.trajectory
        assert isinstance(trajectory.steps[-1], Stop)
        assert trajectory.last_sketch is not None
        shown = detect(trajectory.last_sketch.image.array())
        verdict = satisfied(read_prompt(trajectory.prompt).spec, shown)
        assert verdict.exact, (trajectory.prompt, verdict.reasons)


def test_plans_sketches_inspections_and_refinements_agree(built: list[Sample]) -> None:
    revised = 0
    for sample in built:
        steps = sample.trajectory.steps
        plan: Plan | None = None
        for index, step in enumerate(steps):
            if isinstance(step, Plan):
                plan = step
            if isinstance(step, Sketch) and step.loss:
                # A sketch that is learned shows its plan, exactly.
                assert plan is not None
                wanted = read_description(plan.description)
                assert satisfied(wanted, detect(step.image.array())).exact
            if isinstance(step, Inspection) and step.verdict == "revise":
                revised += 1
                target = steps[index - 1]
                assert isinstance(target, Plan if step.target == "plan" else Sketch)
                assert not target.loss, "what is wrong is there to be seen, not to be learned"
                assert isinstance(steps[index + 1], Refinement)
    assert revised >= 4


def test_training_data_shows_nothing_that_is_held_out(built: list[Sample]) -> None:
    for sample in built:
        for image in sample.trajectory.images:
            scene = Spec.from_scene(scene_from(image.array()))
            for thing in scene.things:
                alone = Spec(things=(replace(thing, number=1),))
                assert not is_held_out(alone), (sample.key, thing)


@pytest.mark.parametrize("inspect", ["nothing", "plans", "sketches"])
def test_subsets_inspect_only_their_own(tmp_path: Path, inspect: str) -> None:
    critiques = Critiques(inspect=inspect, plans=1.0, sketches=1.0)  # type: ignore[arg-type]
    run_job(job(6, critiques=critiques), tmp_path / "data")
    targets = {
        f"{step.target}s" if step.target == "plan" else "sketches"
        for sample in read_shards(tmp_path / "data")
        for step in sample.trajectory.steps
        if isinstance(step, Inspection)
    }
    assert targets == (set() if inspect == "nothing" else {inspect})


def test_a_thing_beside_its_place_is_drawn_refused_and_put_right(tmp_path: Path) -> None:
    """The opposite side has no room left where the editor knew what was to come."""
    critiques = Critiques(sketches=1.0, wrong_sketches=1.0, sketch_mistakes=("elsewhere",))
    prompts = Prompts(count=12, tasks={"position": 1.0})
    run_job(replace(job(12, critiques=critiques), prompts=prompts), tmp_path / "data")
    refused = 0
    for sample in read_shards(tmp_path / "data"):
        steps = sample.trajectory.steps
        for drawn, said in pairwise(steps):
            if isinstance(drawn, Sketch) and isinstance(said, Inspection):
                refused += said.verdict == "revise"
                assert (said.verdict == "accept") == drawn.loss
                if said.verdict == "revise":
                    assert " but should be " in said.critique
        last = sample.trajectory.last_sketch
        assert last is not None
        shown = detect(last.image.array())
        assert satisfied(read_prompt(sample.trajectory.prompt).spec, shown).correct
    assert refused >= 5


def test_mistakes_that_the_editor_cannot_draw_are_counted(tmp_path: Path) -> None:
    """They fell away unsaid: data of 920 refusals had seven of a place, and nobody knew why."""
    critiques = Critiques(sketches=1.0, wrong_sketches=1.0, sketch_mistakes=("relation",))
    prompts, out = Prompts(count=8, tasks={"position": 1.0}), tmp_path / "data"
    run_job(replace(job(8, critiques=critiques), prompts=prompts), out)
    missed = 0
    for sample in read_shards(out):
        said = sample.trajectory.provenance
        missed += len(said.get("mistakes_not_drawn", ()))
        seen = sum(isinstance(step, Inspection) and step.target == "sketch" and
                   step.verdict == "revise" for step in sample.trajectory.steps)  # fmt: skip
        assert seen == said["mistakes"].count("sketch: relation")
    assert missed and read_manifest(out).stats["not_drawn"] == {"sketch: relation": missed}
    assert validate(out).ok
    assert main(["preview", str(out), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "mistakes that the editor did not draw" in page


def test_concurrency_does_not_change_the_data(tmp_path: Path, folder: Path) -> None:
    run_job(job(concurrency=1), tmp_path / "data")
    assert files(tmp_path / "data") == files(folder)


def test_three_processes_make_the_data_of_one(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "data"
    reports = [run_job(job(), out, rank=Rank(number=n, world_size=3)) for n in (2, 0, 1)]
    assert [report.unfinished > 0 for report in reports] == [True, True, False]
    assert files(out) == files(folder)


def test_a_larger_count_keeps_what_was_there(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "data"
    first = run_job(job(COUNT // 2), out)
    with_half = {sample.key: sample.trajectory for sample in read_shards(out)}
    assert len(with_half) == first.accepted
    run_job(job(), out)
    assert files(out) == files(folder)
    assert with_half.items() <= {s.key: s.trajectory for s in read_shards(out)}.items()


def test_a_budget_stops_a_job_and_more_of_it_goes_on(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "data"
    stopped = run_job(job(budget=Budget(requests=30)), out)
    assert "budget.requests: 30 of 30" in stopped.stopped and stopped.unfinished > 0
    assert not (out / "index.json").exists()
    report = run_job(job(budget=Budget(requests=10_000)), out)
    assert report.unfinished == 0
    assert files(out) == files(folder)


def test_nothing_that_was_paid_for_is_paid_for_again(tmp_path: Path, folder: Path) -> None:
    before = Records(folder / LEDGER).spent
    assert before.requests > COUNT
    run_job(job(), folder)
    assert Records(folder / LEDGER).spent == before


def test_what_went_wrong_is_counted_by_reason(tmp_path: Path) -> None:
    careless = replace(PERFECT, wrong_color=0.3, lost_object=0.3)
    settings = job(
        drawing=replace(PlanSketchSettings().drawing, mistakes=careless),
        misbehaviour=Misbehaviour(refusal=0.05),
    )
    report = run_job(settings, tmp_path / "data")
    assert report.accepted + report.rejected + report.failed == COUNT
    assert report.rejected > 0 and report.failed > 0
    assert sum(sum(rows.values()) for rows in report.reasons.values()) == (
        report.rejected + report.failed
    )
    assert any("not as planned" in reason for reason in report.reasons["draw"])
    assert any("refusal" in rows for rows in report.reasons.values())
    manifest = read_manifest(tmp_path / "data")
    assert manifest.acceptance["samples"]["rejected"] == report.rejected


def test_failed_units_are_tried_again_only_when_asked(tmp_path: Path) -> None:
    settings = job(8, misbehaviour=Misbehaviour(refusal=0.1))
    first = run_job(settings, tmp_path / "data")
    assert first.failed > 0
    assert run_job(settings, tmp_path / "data") == first
    again = run_job(settings, tmp_path / "data", retry_failed=True)
    assert isinstance(again, JobSummary)
    assert again.accepted + again.rejected + again.failed == 8
    assert again.accepted >= first.accepted


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "data"
    run_job(job(4), out)
    before = files(out)
    with pytest.raises(ValueError, match=r"other settings: .*Write to another folder"):
        run_job(job(4, steps=Steps(varied=0.9)), out)
    assert files(out) == before


def test_a_folder_that_was_begun_in_other_words_says_how_to_go_on(tmp_path: Path) -> None:
    """It said to go on with its settings, which say nothing of what is in the files of words."""
    out, mine = tmp_path / "data", tmp_path / "mine.md"
    mine.write_text("version: mine\n\nSplit the scene into steps.\n")
    begun = job(2, wording={"plan_steps": mine})
    run_job(begun, out)
    before = files(out)
    with pytest.raises(
        ValueError, match=r"words\.plan_steps was 'mine.*Requests are worded"
    ) as told:
        run_job(job(2), out)
    assert str(told.value).endswith(
        ". Requests are worded otherwise since: write to another folder, end it with the version "
        "of staged that began it, or give its words back (wording)"
    )
    assert "go on with the settings" not in str(told.value)
    both = r"seed was 0 and is 1; words.*go on with the settings in .*\. Requests are worded"
    with pytest.raises(ValueError, match=both):
        run_job(job(2, seed=1), out)
    with pytest.raises(ValueError, match=r"seed was 0 and is 1\. Write") as told:
        run_job(replace(begun, seed=1), out)
    assert "worded" not in str(told.value)
    run_job(begun, out)
    assert files(out) == before


def test_what_is_in_the_making_when_a_service_stops_the_job_is_finished(tmp_path: Path) -> None:
    async def work(unit: int) -> UnitResult:
        await asyncio.sleep(0)  # until all have begun
        if unit == 1:
            raise ServiceError("402: no credits")
        await asyncio.sleep(0.05)
        return UnitResult(status="accepted", sample={})

    with Ledger(tmp_path, fingerprint="f") as ledger:
        with pytest.raises(ServiceError, match="no credits"):
            asyncio.run(run(range(9), work, ledger, concurrency=3, label="units"))
        assert [unit for unit, _ in ledger.results()] == [0, 2]


def test_one_process_at_a_time_writes_a_rank(tmp_path: Path) -> None:
    fingerprint = job().fingerprint
    with (
        Ledger(tmp_path / LEDGER, fingerprint=fingerprint),
        pytest.raises(ValueError, match="another process is writing"),
    ):
        run_job(job(), tmp_path)


def test_prompts_come_from_a_file_and_bad_lines_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a photo of a red circle above a blue star\n\na photo of two hearts\n")
    job_ = ["plan-sketch", f"prompts.file={prompts}", "prompts.count=2"]
    assert main([*job_, "--out", str(tmp_path / "data")]) == 0
    assert [s.trajectory.prompt for s in read_shards(tmp_path / "data")] == [
        "a photo of a red circle above a blue star",
        "a photo of two hearts",
    ]
    with pytest.raises(ValueError, match=r"2 prompts, but prompts\.count is 3"):
        main([*job_[:2], "prompts.count=3", "--out", str(tmp_path / "more")])
    prompts.write_text("a photo of two hearts\na photo</ins>\n")
    with pytest.raises(ValueError, match=r"prompts\.txt:2: "):
        main([*job_, "--out", str(tmp_path / "bad")])
    prompts.write_bytes(b"a photo of a caf\xe9\n")
    with pytest.raises(ValueError, match=r"prompts\.txt:1: no UTF-8 text"):
        main([*job_, "--out", str(tmp_path / "bad")])
    prompts.write_text("no sentence\nof this world\n")
    assert main([*job_, "--out", str(tmp_path / "none")]) == 1
    assert "no sample was accepted" in capsys.readouterr().err


def test_the_command_says_when_a_budget_stopped_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "data")]
    assert main(["plan-sketch", "prompts.count=4", "budget.images=2", *out]) == 3
    assert "budget.images: 2 of 2" in capsys.readouterr().err
    assert main(["plan-sketch", "prompts.count=4", *out]) == 0
    assert main(["validate", str(tmp_path / "data")]) == 0


def test_a_damaged_data_set_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_job(job(4), tmp_path / "data")
    shard = tmp_path / "data" / "shard-000000.tar"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    assert main(["validate", str(tmp_path / "data")]) == 1
    assert "shard-000000.tar" in capsys.readouterr().err


def launch(count: int, out: Path) -> Command:
    command = ["plan-sketch", f"prompts.count={count}", "--out", str(out)]
    return Command(command, out.with_name("log"))


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_job_killed_at_random_makes_the_same_data(tmp_path: Path, kills: int) -> None:
    count = 10 * kills
    assert launch(1, tmp_path / "first").end() == 0  # what starts the others takes its time once
    began = time.monotonic()
    assert launch(count, tmp_path / "whole").end() == 0
    whole_s = time.monotonic() - began
    whole = files(tmp_path / "whole")

    rng, killed, finished = random.Random(kills), 0, 0
    while killed < kills:
        out = tmp_path / f"killed{finished}"
        process = launch(count, out)
        time.sleep(rng.uniform(0.1, 0.6) * whole_s)
        if process.kill():
            killed += 1
        else:
            assert files(out) == whole
            finished += 1
    assert launch(count, out).end() == 0
    assert files(out) == whole
    assert validate(out).ok


def base(out: Path, **changes: object) -> BaseSettings:
    return replace(BaseSettings(out=out, num_samples=60, num_workers=1), **changes)


def test_the_base_diet_is_a_function_of_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_pipelines.base._CHUNK", 16)
    counts = build_base(base(tmp_path / "one"))
    assert counts.total() == 60
    assert (
        {"one_shot", "understanding", "add"} < set(counts) <= {"one_shot", "understanding", *VERBS}
    )
    build_base(base(tmp_path / "two", num_workers=2))
    build_base(base(tmp_path / "other", seed=1))
    assert files(tmp_path / "one") == files(tmp_path / "two") != files(tmp_path / "other")
    for sample in read_shards(tmp_path / "one"):
        _is_right(sample.trajectory)


def test_facts_are_told_in_words_that_are_no_prompt(tmp_path: Path) -> None:
    settings = base(tmp_path, kinds={"told": 1.0}, num_samples=400)
    told = [sample_of_base(settings, index) for index in range(settings.num_samples)]
    said = {
        (one.prompt, answer.text)
        for one in told
        for answer in one.steps
        if isinstance(answer, Answer)
    }
    assert {("the colour of milk", "white"), ("how many legs has a dog", "four")} <= said
    assert ("describe a pumpkin", "a pumpkin is orange") in said
    assert len({answer for _, answer in said if answer in COLORS}) == len(COLORS)
    words = {word.rstrip("s") for pair in said for word in " ".join(pair).split()}
    assert not words & ({*KINDS} - {"triangle", "square"})  # which are what facts are about, too
    assert not any(one.images for one in told)
    for prompt, _ in said:
        with pytest.raises(GrammarError):
            read_request(prompt)


def _is_right(trajectory: Trajectory) -> None:
    for image in trajectory.images:
        scene = Spec.from_scene(scene_from(image.array()))
        assert not any(is_held_out(Spec(things=(replace(t, number=1),))) for t in scene.things)
    if trajectory.task == "one_shot":
        assert trajectory.last_sketch is not None
        shown = detect(trajectory.last_sketch.image.array())
        assert satisfied(read_prompt(trajectory.prompt).spec, shown).exact


def test_settings_of_the_base_diet_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"kinds: no such edits; there are .*edit"):
        base(tmp_path, kinds={"edits": 1.0})
    with pytest.raises(ValueError, match="num_samples is 0"):
        base(tmp_path, num_samples=0)
    assert settings_of.to_dict(base(tmp_path))["num_samples"] == 60
