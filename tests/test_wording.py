"""The words in which a language model is asked: examples that hold, rules that are said."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipelines.plan_sketch.job import run_job
from data_pipelines.plan_sketch.requests import SceneAnswer, StepAnswer, scene_graph_request
from data_pipelines.plan_sketch.settings import PlanSketchSettings
from data_pipelines.prompts import Prompts
from data_pipelines.wording import PURPOSES, Wording
from staged.shapes.players.lmm import _ANSWERS
from staged.shapes.world.scene import KINDS
from staged.shards import read_shards

WORDING = Wording()


def test_everything_that_is_asked_has_words_and_the_miniature_answers_it() -> None:
    assert set(PURPOSES) <= set(_ANSWERS)
    assert len(PURPOSES) >= 7


@pytest.mark.parametrize("purpose", PURPOSES)
def test_rules_that_make_an_answer_invalid_are_said(purpose: str) -> None:
    text = WORDING.text(purpose)
    assert "An answer is not valid if" in text
    assert len(text) < 4000 * 2, "every request pays for it"
    assert not re.search(r"\b(?:miniature|shapes?|pixel)\b", text.replace("shape, age", "age"))
    named = [name for name in KINDS if re.search(rf"\b{name}s?\b", text)]
    assert not named, "a vocabulary of the miniature world"


@pytest.mark.parametrize("purpose", ["judge_plan", "judge_sketch", "explain_image"])
def test_critiques_come_before_verdicts_and_by_aspects(purpose: str) -> None:
    text = WORDING.text(purpose)
    assert text.index("critique") < text.index("verdict")
    for aspect in ("entities", "counts", "attributes", "relations", "style"):
        assert aspect in text
    assert "several sentences" in text


def test_a_judge_writes_what_it_sees_before_it_grades() -> None:
    text = WORDING.text("judge_step")
    assert text.index("seen, one sentence") < text.index("the grade from 1 to 5")
    for asked in ("extras", "kept", "quality", "exactly"):
        assert asked in text
    assert "not told what anybody wanted" in text


def answers_in(purpose: str) -> list[str]:
    return re.findall(r'^\{"(?:objects|instruction)".*\}$', WORDING.text(purpose), re.M)


def test_examples_of_scenes_are_valid_answers() -> None:
    [cats, baker] = [SceneAnswer.model_validate_json(text) for text in answers_in("scene_graph")]
    assert [o.class_name for o in cats.graph().objects] == ["cat", "cat", "bench"]
    assert cats.said_of_all() == {
        "style": "watercolour", "setting": "a snowy park", "light": "dusk"
    }  # fmt: skip
    words = cats.vocabulary()
    assert words.classes_for("o3") == ("log",)
    assert words.values_for("o3", "material") == ("stone", "iron")
    assert words.values_for("o1", "color") == ()
    crowd = {a.kind: a.value for a in baker.graph().attributes_of("o4")}
    assert crowd == {"action": "waiting", "number": "many"}


def test_examples_of_steps_are_valid_answers_and_name_nothing_that_comes_later() -> None:
    examples = [StepAnswer.model_validate_json(text) for text in answers_in("plan_steps")]
    assert len(examples) == 2
    for example in examples:
        assert "watercolour" in example.description and "watercolour" in example.editor_prompt
        assert "lantern" not in json.dumps(example.model_dump())
        assert "empty" in example.editor_prompt


def test_the_schema_of_an_answer_has_reasons_before_grades() -> None:
    from data_pipelines.inspection import PlanJudgement
    from data_pipelines.plan_sketch.requests import SeenAnswer
    from data_pipelines.refine.requests import FitJudgement, PairJudgement
    from staged.backends.lmm.wire import wire_schema

    def order(answer: type) -> list[str]:
        return list(wire_schema(answer)["properties"])

    assert order(SeenAnswer) == ["id", "seen", "grade"]
    assert order(PlanJudgement)[:3] == ["critique", "verdict", "correction"]
    assert order(FitJudgement) == ["critique", "verdict"]
    assert order(PairJudgement)[0] == "critique"


def own(path: Path, text: str = "version: mine\n\nRead the prompt.\n") -> Path:
    path.write_text(text)
    return path


def test_words_of_ones_own_are_asked_recorded_and_kept(tmp_path: Path) -> None:
    path = own(tmp_path / "own.md")
    wording = Wording({"scene_graph": path})
    request = scene_graph_request(wording, "a photo of a star")
    assert request.instructions == "Read the prompt."
    assert request.prompt_version.startswith("mine ")
    assert wording.text("judge_step") == WORDING.text("judge_step")
    out = tmp_path / "data"
    job = PlanSketchSettings(prompts=Prompts(count=2), wording={"scene_graph": path})
    assert run_job(job, out).accepted
    [sample, *_] = read_shards(out)
    versions = sample.trajectory.provenance["prompt_versions"]
    assert versions["scene_graph"] == request.prompt_version
    assert versions["judge_step"].startswith("2 ")
    assert not run_job(job, out).new, "the same words"
    own(path, "version: mine\n\nRead it twice.\n")
    with pytest.raises(ValueError, match=r"words\.scene_graph was 'mine [0-9a-f]{8}' and is 'mine"):
        run_job(job, out)
    with pytest.raises(ValueError, match=r"words\.scene_graph was"):
        run_job(replace(job, wording={}), out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Read the prompt.", "expected 'version: NAME', an empty line"),
        ("version: 1\n\n \n", "expected 'version: NAME'"),
        ("version: 1\n\n" + "a" * 70_000, "larger than"),
    ],
)
def test_files_that_are_no_instructions_are_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        Wording({"judge_step": own(tmp_path / "own.md", text)})


def test_unknown_kinds_of_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing is asked as write_poem; there are correct_image"):
        Wording({"write_poem": own(tmp_path / "own.md")})
    (tmp_path / "bytes.md").write_bytes(b"version: 1\n\n\xff")
    with pytest.raises(ValueError, match="no UTF-8 text"):
        Wording({"judge_step": tmp_path / "bytes.md"})
