"""The plan-sketch job as a user runs it: a language model over HTTP and a diffusers editor."""

import asyncio
import inspect
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import pytest
from ranks import Command
from serving import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from test_editor import tiny_kontext
from test_refine import triple, write_tar

import staged
from data_pipelines.__main__ import main
from data_pipelines.critique.job import run_job as run_critique
from data_pipelines.critique.settings import CritiqueSettings
from data_pipelines.drawing import DrawingSettings, priced
from data_pipelines.job import LEDGER
from data_pipelines.pairs import write_pairs
from data_pipelines.plan_sketch.job import run_job
from data_pipelines.plan_sketch.settings import Critiques, Gate, PlanSketchSettings, Steps
from data_pipelines.prompts import Prompts
from data_pipelines.refine.job import run_job as run_refine
from data_pipelines.refine.settings import RefineSettings
from data_pipelines.services import Services
from staged import strict_yaml
from staged.backends.diffusers.editor import DiffusersEditor
from staged.backends.diffusers.settings import LICENCES, DiffusersSettings
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.settings import LmmSettings
from staged.jobs.budget import Budget
from staged.jobs.ledger import Ledger
from staged.scene_graph import Vocabulary
from staged.settings import from_dict, load, save_resolved, to_dict
from staged.shapes.players.editor import EditorMistakes
from staged.shapes.players.misbehaviour import Misbehaviour
from staged.shapes.world.scene import COLORS, KINDS
from staged.shards import read_shards, validate
from staged.trajectory import Sketch

J = TypeVar("J", PlanSketchSettings, CritiqueSettings)
PROMPT = "a beach in the style of Van Gogh with a red parasol"


class Reader:
    """Reads one prompt, plans in set phrases, and finds everything as it should be."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        route = Route("/v1/chat/completions", self.answer, methods=["POST"])
        self.app = Starlette(routes=[route])

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        content = json.loads(body["messages"][1]["content"][0]["text"])
        said = getattr(self, body["response_format"]["json_schema"]["name"])(content)
        message = {"role": "assistant", "content": json.dumps(said)}
        return JSONResponse({"choices": [{"finish_reason": "stop", "message": message}]})

    def asked(self, purpose: str) -> list[dict[str, Any]]:
        """The user messages of one kind of request."""
        return [
            json.loads(body["messages"][1]["content"][0]["text"])
            for body in self.bodies
            if body["response_format"]["json_schema"]["name"] == purpose
        ]

    def scene_graph(self, content: dict[str, Any]) -> dict[str, Any]:
        def thing(number: int, name: str, count: int = 1, **looks: str) -> dict[str, Any]:
            attributes = [
                {"kind": kind, "value": value, "instead": ["green", "white"]}
                for kind, value in looks.items()
            ]
            return {
                "id": f"o{number}", "class_name": name, "number": count,
                "attributes": attributes, "instead": [f"other {name}"],
            }  # fmt: skip

        return {
            "objects": [
                thing(1, "beach"),
                thing(2, "parasol", color="red"),
                thing(3, "crowd", 0),
                thing(4, "deckchair", material="wooden"),
            ],
            "relations": [{"source": "o2", "relation": "on", "target": "o1"}],
            "look": {
                "style": "in the style of Van Gogh", "setting": None, "light": None,
                "camera": None,
            },
        }  # fmt: skip

    def plan_steps(self, content: dict[str, Any]) -> dict[str, Any]:
        def words(step: dict[str, Any]) -> str:
            return " and ".join(o["class"] for o in step["after"]["objects"])

        return {
            "steps": [
                {
                    "instruction": f"show {words(step)}",
                    "description": words(step),
                    "editor_prompt": f"draw {words(step)}; leave the left empty",
                }
                for step in content["steps"]
            ]
        }

    def judge_step(self, content: dict[str, Any]) -> dict[str, Any]:
        answers = [
            {"id": question["id"], "seen": "it is there", "grade": 4}
            for question in content["questions"]
        ]
        return {"answers": answers, "extras": [], "kept": 4, "quality": 4}

    def judge_plan(self, content: dict[str, Any]) -> dict[str, Any]:
        texts = dict.fromkeys(("correction", "instruction", "description"), "")
        said = {"critique": "as it was asked for", "verdict": "accept", **texts}
        return {**said, "sound": True, "complete": False}

    def explain_image(self, content: dict[str, Any]) -> dict[str, Any]:
        return {"critique": "as it was asked for", "verdict": "accept"}

    def correct_image(self, content: dict[str, Any]) -> dict[str, Any]:
        return {
            "critique": "the star is missing", "conflicts": True, "correction": "add the star",
            "explanation": "the star is there", "mended": True,
        }  # fmt: skip

    def judge_sketch(self, content: dict[str, Any]) -> dict[str, Any]:
        return {"critique": "as it was asked for", "verdict": "accept", "correction": ""}


@pytest.fixture(scope="module")
def kontext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kontext")
    tiny_kontext().save_pretrained(folder)
    return folder


def settings(kontext: Path, folder: Path, url: str, **changes: Any) -> PlanSketchSettings:
    prompts = folder / "prompts.txt"
    prompts.write_text(f"{PROMPT}\n" * 6)
    editor = DiffusersSettings(
        model=str(kontext), licence="none", device="cpu", dtype="float32", num_inference_steps=2
    )
    return PlanSketchSettings(
        prompts=Prompts(file=prompts, count=6),
        lmm=LmmSettings(model="reader-1", base_url=url, api_key_env=None),
        drawing=DrawingSettings(editor=editor, width=32, height=16),
        critiques=Critiques(inspect="nothing"),
        steps=Steps(varied=1.0),
        **changes,
    )


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_real_editor_draws_for_sixteen_units_at_a_time(
    kontext: Path, tmp_path: Path, batch_size: int
) -> None:
    made = []
    for concurrency in (1, 16):
        reader, out = Reader(), tmp_path / str(concurrency)
        with serve(reader.app) as url:
            job = settings(kontext, tmp_path, url, concurrency=concurrency)
            assert job.drawing.editor is not None
            editor = replace(job.drawing.editor, batch_size=batch_size)
            job = replace(job, drawing=replace(job.drawing, editor=editor))
            report = run_job(job, out)
        assert report.accepted == 6 and not report.reasons
        made.append([sample.trajectory for sample in read_shards(out)])
    for one, other in zip(*made, strict=True):
        assert [ref.png for ref in one.images] == [ref.png for ref in other.images]
        assert one.steps == other.steps
    assert {ref.array().shape for trajectory in made[0] for ref in trajectory.images} == {
        (16, 32, 3)
    }
    said = " ".join(json.dumps(body["messages"][1]) for body in reader.bodies)
    assert "other parasol" in said or "other deckchair" in said or "other crowd" in said
    assert not [name for name in KINDS if f'"{name}"' in said or f" {name} " in said]
    assert "Leave room" not in said
    sample = made[0][0]
    assert sample.provenance["look"] == {"style": "in the style of Van Gogh"}
    assert {len(t.images) for t in made[0]} <= {3, 4, 5}, "from three to five"
    assert all(asked["look"]["style"] for asked in reader.asked("plan_steps"))


def test_the_judge_is_told_nothing_but_questions(kontext: Path, tmp_path: Path) -> None:
    reader = Reader()
    with serve(reader.app) as url:
        run_job(settings(kontext, tmp_path, url), tmp_path / "out")
    asked = reader.asked("judge_step")
    assert asked and all(set(content) == {"questions", "result"} for content in asked)
    texts = {q["question"] for content in asked for q in content["questions"]}
    assert {"Is the parasol red?", "Is the parasol on the beach?"} <= texts
    assert "Is there exactly 1 deckchair?" in texts
    assert "Are there many, or one mass of many, of this kind: crowd?" in texts
    assert not any("exactly 1 crowd" in text for text in texts), "nobody counts a crowd"
    assert any("as it was in the other image" in text for text in texts)
    assert {q["id"] for content in asked for q in content["questions"]} == {
        f"q{n}" for n in range(1, 1 + max(len(c["questions"]) for c in asked))
    }
    styles = [
        json.dumps(content).count("this style: in the style of Van Gogh") for content in asked
    ]
    assert set(styles) == {0, 1} and styles[0] == 1, "where an image is the first, or the last"
    said = json.dumps(asked)
    assert PROMPT not in said and "show " not in said, "nor what was planned"


def test_mistakes_are_written_from_what_is_described_so_far(kontext: Path, tmp_path: Path) -> None:
    reader = Reader()
    critiques = Critiques(plans=1.0, wrong_plans=1.0, sketches=0.0)
    with serve(reader.app) as url:
        job = replace(settings(kontext, tmp_path, url, concurrency=1), critiques=critiques)
        run_job(replace(job, prompts=replace(job.prompts, count=2)), tmp_path / "out")
    alone = [c["steps"] for c in reader.asked("plan_steps") if "drawn_so_far" in c["steps"][0]]
    assert alone and len(alone) < len(reader.asked("plan_steps"))
    for step in (step for steps in alone for step in steps):
        drawn = [item["class"] for item in step["before"]["objects"]]
        assert step["drawn_so_far"] == (" and ".join(drawn) or None)


def test_an_editor_that_is_told_too_much_too_early_is_asked_for_again(
    kontext: Path, tmp_path: Path
) -> None:
    class Chatty(Reader):
        def plan_steps(self, content: dict[str, Any]) -> dict[str, Any]:
            answer = super().plan_steps(content)
            later = [name for step in content["steps"] for name in step["not_yet"]]
            if later and len(self.asked("plan_steps")) == 1:
                answer["steps"][0]["editor_prompt"] = f"leave room for the {later[0]}s"
            return answer

    reader = Chatty()
    with serve(reader.app) as url:
        job = settings(kontext, tmp_path, url, concurrency=1)
        report = run_job(replace(job, prompts=replace(job.prompts, count=1)), tmp_path / "out")
    assert report.accepted == 1 and len(reader.asked("plan_steps")) == 2


def test_a_drawing_that_does_not_pass_is_drawn_again_and_makes_a_preference(
    kontext: Path, tmp_path: Path
) -> None:
    class Strict(Reader):
        def judge_step(self, content: dict[str, Any]) -> dict[str, Any]:
            answer = super().judge_step(content)
            return {**answer, "quality": 2} if len(self.asked("judge_step")) == 1 else answer

    reader, out = Strict(), tmp_path / "out"
    with serve(reader.app) as url:
        job = settings(kontext, tmp_path, url, concurrency=1)
        job = replace(job, prompts=replace(job.prompts, count=1))
        report = run_job(job, out)
        assert report.accepted == 1
        once = run_job(replace(job, gate=Gate(attempts=1)), tmp_path / "once")
        assert once.accepted == 1, "the stricter first look was the other job's"
    [sample] = read_shards(out)
    [noted] = sample.trajectory.provenance["refused_edits"]
    assert noted["reason"] == "poor quality"
    assert write_pairs(out, tmp_path / "pairs") == 1
    better, worse = (s.trajectory.last_sketch for s in read_shards(tmp_path / "pairs"))
    assert better is not None and worse is not None
    assert better.seed != worse.seed and better.image.png != worse.image.png
    assert worse.seed == noted["seed"]


ROOT = Path(staged.__file__).parents[1]


def shipped(*keys: str) -> list[Path]:
    """Files in `configs` for real services that have these keys."""
    paths = sorted((ROOT / "configs").rglob("*.yaml"))
    has = {path.relative_to(ROOT): strict_yaml.read(path)[0].keys() for path in paths}
    return [path for path, found in has.items() if {"lmm", *keys} <= found]


CRITIQUE, REFINE = shipped("generator", "prompts"), shipped("sources")
PLAN_SKETCH = [path for path in shipped("prompts", "drawing") if path not in CRITIQUE]


def players(job: J, kontext: Path, url: str, *, width: int = 32, height: int = 16) -> J:
    """The same job with a local language model and a tiny editor."""
    shipped_editor = job.drawing.editor
    assert job.lmm is not None and shipped_editor is not None
    editor = DiffusersSettings(
        model=str(kontext),
        licence="none",
        device="cpu",
        dtype="float32",
        num_inference_steps=2,
        batch_size=shipped_editor.batch_size,
        first_step_without_image=shipped_editor.first_step_without_image,
    )
    return replace(
        job,
        prompts=replace(job.prompts, count=12),
        drawing=replace(job.drawing, editor=editor, width=width, height=height),
        lmm=replace(job.lmm, base_url=url, api_key_env=None),
    )


@pytest.mark.parametrize("path", PLAN_SKETCH, ids=str)
def test_every_shipped_job_of_real_pictures_runs_with_local_players(
    kontext: Path, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is configured, but for where the players are and how large the pictures."""
    monkeypatch.chdir(tmp_path)
    settings_ = load(PlanSketchSettings, ROOT / path)
    assert settings_.prompts.file is not None
    (tmp_path / settings_.prompts.file).write_text(f"{PROMPT}\n" * 12)
    with serve(Reader().app) as url:
        report = run_job(players(settings_, kontext, url), tmp_path / "out")
    # The reader accepts whatever it sees, so what was wrong on purpose is rejected.
    assert report.accepted > 0 and report.failed == 0 and not report.unfinished, report
    assert len(list(read_shards(tmp_path / "out"))) == report.accepted


@pytest.mark.parametrize("path", CRITIQUE, ids=str)
def test_every_shipped_critique_of_real_pictures_runs_with_local_players(
    kontext: Path, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings_ = load(CritiqueSettings, ROOT / path)
    assert settings_.prompts.file is not None
    (tmp_path / settings_.prompts.file).write_text("a photo of two hearts\n" * 12)
    with serve(Reader().app) as url:
        job = players(settings_, kontext, url, width=48, height=48)
        generator = replace(
            job.generator, checkpoint="miniature:staged", dtype="float32", num_flow_steps=2
        )
        job = replace(job, generator=generator, prompts=replace(job.prompts, count=2))
        report = run_critique(job, tmp_path / "out")
    assert report.accepted > 0 and not report.unfinished and report.failed == 0, report


@pytest.mark.parametrize("path", REFINE, ids=str)
def test_every_shipped_refinement_runs_with_a_local_reader(tmp_path: Path, path: Path) -> None:
    settings_ = load(RefineSettings, ROOT / path)
    assert settings_.lmm is not None
    [source] = settings_.sources
    write_tar(tmp_path / "00000.tar", {f"{n:06d}": triple(n) for n in range(4)})
    with serve(Reader().app) as url:
        job = replace(
            settings_,
            count=4,
            sources=(replace(source, path=tmp_path),),
            lmm=replace(settings_.lmm, base_url=url, api_key_env=None),
        )
        report = run_refine(job, tmp_path / "out")
    assert report.accepted == 4, report


def test_services_that_cost_money_ship_with_prices_and_a_budget() -> None:
    """A price that is left out is a budget that holds nothing."""
    jobs = [load(PlanSketchSettings, ROOT / path) for path in PLAN_SKETCH]
    refinements = [load(RefineSettings, ROOT / path) for path in REFINE]
    assert CRITIQUE and REFINE
    paid = [job for job in (*jobs, *refinements) if job.lmm and job.lmm.api_key_env]
    assert paid
    for job in paid:
        assert job.lmm is not None and job.budget.usd
        assert job.lmm.usd_per_million_input_tokens and job.lmm.usd_per_million_output_tokens


def test_an_editor_under_the_apache_licence_ships() -> None:
    jobs = [load(PlanSketchSettings, ROOT / path) for path in PLAN_SKETCH]
    licences = {LICENCES[job.drawing.editor.model] for job in jobs if job.drawing.editor}
    assert "Apache-2.0" in licences and len(licences) > 1


@pytest.mark.parametrize("path", PLAN_SKETCH, ids=str)
def test_the_pipeline_that_a_shipped_job_names_takes_what_it_is_given(path: Path) -> None:
    editor = load(PlanSketchSettings, ROOT / path).drawing.editor
    assert editor is not None
    takes = inspect.signature(getattr(diffusers, editor.pipeline).__call__).parameters
    assert {"image", "prompt", "width", "height", "generator"} <= takes.keys()
    assert {editor.guidance_argument, *editor.arguments} <= takes.keys()


EDITOR = DiffusersSettings()
LMM = LmmSettings(model="reader-1", api_key_env=None)
FILE = Prompts(file=Path("prompts.txt"))


def test_a_real_job_has_real_defaults_and_the_miniature_its_own() -> None:
    real = PlanSketchSettings(prompts=FILE, lmm=LMM, drawing=DrawingSettings(editor=EDITOR))
    assert (real.drawing.width, real.drawing.height, real.drawing.foresight) == (1024, 1024, False)
    assert real.steps.limits == (3, 5, 12)
    proposed = Vocabulary(classes=("fox",), instead={"o1": ("fox",)})
    assert real.steps.vocabulary(proposed) == proposed, "the language model proposes"
    assert (real.gate.attempts, PlanSketchSettings().gate.attempts) == (2, 1)
    miniature = PlanSketchSettings()
    assert (miniature.drawing.width, miniature.drawing.foresight) == (48, True)
    listed = Vocabulary(classes=KINDS, attributes={"color": COLORS})
    assert miniature.steps.vocabulary(proposed) == listed
    for settings_ in (real, miniature):
        # What is saved says what was used, and means the same when it is read again.
        assert from_dict(PlanSketchSettings, to_dict(settings_)) == settings_
    own = Steps(classes=("whale",), attributes={}, max_objects=2)
    words = replace(real, steps=own).steps.vocabulary(proposed)
    assert words.classes_for("o1") == ("whale",)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"drawing": DrawingSettings(editor=EDITOR)},
            "lmm: the miniature world's language model knows",
        ),
        (
            {"drawing": DrawingSettings(editor=EDITOR), "lmm": LmmSettings(model="shapes-lmm-1")},
            "lmm: the",
        ),
        ({"lmm": LMM, "prompts": FILE}, r"drawing\.editor: reader-1 plans, and the miniature"),
        (
            {"lmm": LMM, "drawing": DrawingSettings(editor=EDITOR)},
            r"prompts\.file: sampled prompts are",
        ),
        (
            {
                "lmm": LMM,
                "drawing": DrawingSettings(editor=EDITOR),
                "prompts": FILE,
                "misbehaviour": Misbehaviour(refusal=0.1),
            },
            "misbehaviour is the miniature",
        ),
    ],
)
def test_what_is_of_the_miniature_world_is_refused_in_a_real_job(
    parts: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PlanSketchSettings(**parts)


def test_parts_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="mistakes are the miniature world's editor's"):
        DrawingSettings(editor=EDITOR, mistakes=EditorMistakes(wrong_color=0.5))
    with pytest.raises(ValueError, match=r"foresight is for the miniature world's editor"):
        DrawingSettings(editor=EDITOR, foresight=True)
    with pytest.raises(ValueError, match=r"min_steps is 4, and max_steps 3"):
        Steps(min_steps=4, max_steps=3)
    with pytest.raises(ValueError, match="variations: weights must be 0 or more"):
        Steps(variations={"change": -1})
    with pytest.raises(ValueError, match=r"min_kept is 6"):
        Gate(min_kept=6)
    with pytest.raises(ValueError, match=r"height is 1000; FLUX.1 Kontext draws multiples of 16"):
        DrawingSettings(editor=EDITOR, height=1000)
    with pytest.raises(ValueError, match="width is 64: the miniature world's canvas is 48 x 48"):
        DrawingSettings(width=64)
    with pytest.raises(ValueError, match="tasks and split are for sampled prompts"):
        Prompts(file=Path("prompts.txt"), tasks={"counting": 1.0})
    served = LmmSettings(model="shapes-lmm-1", api_key_env=None)
    assert PlanSketchSettings(lmm=served).drawing.width == 48


def test_what_a_service_said_is_on_the_screen_and_in_the_ledger(
    kontext: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing(Reader):
        def scene_graph(self, content: dict[str, Any]) -> dict[str, Any]:
            raise ValueError("I read no poems")

        async def answer(self, request: Request) -> Response:
            try:
                return await super().answer(request)
            except ValueError as error:
                return JSONResponse({"error": {"message": str(error)}}, 400)

    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"{PROMPT}\n")
    arguments = [
        f"prompts.file={prompts}", "prompts.count=1", "lmm.model=reader-1", "lmm.api_key_env=null",
        f"drawing.editor.model={kontext}", "drawing.editor.licence=none",
        "drawing.editor.device=cpu", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    with serve(Refusing().app) as url:
        for _ in range(2):  # the second time from the ledger
            assert main(["plan-sketch", *arguments, f"lmm.base_url={url}"]) == 1
            said = capsys.readouterr().out
            assert "scene_graph: bad_request: 1, such as '400: I read no poems'" in said


def carrying(kontext: Path, folder: Path, url: str) -> PlanSketchSettings:
    job = settings(kontext, folder, url, concurrency=2)
    assert job.drawing.editor is not None
    editor = replace(job.drawing.editor, carry_latents=True)
    return replace(
        job, drawing=replace(job.drawing, editor=editor), prompts=replace(job.prompts, count=2)
    )


def test_latents_are_carried_and_a_job_that_was_stopped_draws_the_same(
    kontext: Path, tmp_path: Path
) -> None:
    """Each edit used to encode the picture that the one before had decoded."""
    with serve(Reader().app) as url:
        job = carrying(kontext, tmp_path, url)
        assert run_job(job, tmp_path / "whole").accepted == 2
        whole = shard_bytes(tmp_path / "whole")
        for number in range(1, 4):
            assert run_job(replace(job, budget=Budget(images=number)), tmp_path / "cut").stopped
        assert run_job(job, tmp_path / "cut").accepted == 2
        assert shard_bytes(tmp_path / "cut") == whole
        # Without latents the same job is another one, and no record says anything of them.
        assert job.drawing.editor is not None
        plain = replace(job.drawing, editor=replace(job.drawing.editor, carry_latents=False))
        assert run_job(replace(job, drawing=plain), tmp_path / "plain").accepted == 2
        with pytest.raises(ValueError, match="carry_latents"):
            run_job(replace(job, drawing=plain), tmp_path / "whole")
    assert shard_bytes(tmp_path / "plain") != whole
    for sample, other in zip(
        *map(read_shards, (tmp_path / "whole", tmp_path / "plain")), strict=True
    ):
        steps = sample.trajectory.steps
        places = [n for n, step in enumerate(steps) if isinstance(step, Sketch)]
        assert sample.trajectory.provenance["onto_latents"] == places[1:]
        assert "onto_latents" not in other.trajectory.provenance
    journal = (tmp_path / "plain" / LEDGER / "00000.jsonl").read_text()
    assert "beside" not in journal and "carry_latents" not in str(plain.deciding)


@pytest.mark.slow
def test_a_killed_job_goes_on_from_its_latents_and_draws_lost_ones_again(
    kontext: Path, tmp_path: Path
) -> None:
    with serve(Reader().app) as url:
        job, out = carrying(kontext, tmp_path, url), tmp_path / "killed"
        assert run_job(job, tmp_path / "whole").accepted == 2
        save_resolved(job, tmp_path / "job.yaml")
        command = ["plan-sketch", str(tmp_path / "job.yaml"), "--out", str(out)]
        for records in (12, 20):
            running = Command(command, tmp_path / "killed.log")
            journal = out / LEDGER / "00000.jsonl"
            while running.running and (
                not journal.is_file() or journal.read_bytes().count(b"\n") < records
            ):
                time.sleep(0.005)
            assert running.kill(), "it had ended before"
        # The newest picture's latents, or the picture, are lost: it is drawn once more.
        blobs = out / LEDGER / "00000.blobs"
        os.truncate(blobs, blobs.stat().st_size - 1)
        assert run_job(job, out).accepted == 2
    assert shard_bytes(out) == shard_bytes(tmp_path / "whole")


def shard_bytes(folder: Path) -> dict[str, bytes]:
    assert validate(folder).ok
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_an_image_is_found_again_by_another_device(kontext: Path, tmp_path: Path) -> None:
    reader, drawn = Reader(), []
    with serve(reader.app) as url:
        job = settings(kontext, tmp_path, url)
        assert job.drawing.editor is not None
        for device in ("cpu", "auto"):
            editor = replace(job.drawing.editor, device=device)
            again = replace(job, drawing=replace(job.drawing, editor=editor))
            assert again.fingerprint == job.fingerprint
            with Ledger(tmp_path / "ledger", fingerprint="f") as ledger:
                services = Services(
                    lmm=LmmClient(LMM),
                    drawing=replace(
                        priced(DiffusersEditor(editor), again.drawing), in_thread=False
                    ),
                    ledger=ledger,
                )
                drawn.append(asyncio.run(services.draw(None, "a star", seed=1)))
                assert ledger.spent.images == 1
    assert drawn[0] == drawn[1]
