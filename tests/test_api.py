"""The Python interface: ten lines that load, draw, watch, step in, and save."""

import ast
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import staged
from staged.generate.model import DrawingModel
from staged.loops.events import (
    Event,
    Failed,
    PlanWritten,
    Previewed,
    SketchDrawn,
    Stopped,
    TextPreviewed,
)

PROMPT = "a photo of a red circle above a blue star"
SMALL = {"num_flow_steps": 2, "max_rounds": 1, "max_refinements": 0, "dtype": "float32"}


@pytest.fixture(scope="module")
def model() -> staged.LoadedModel:
    return staged.load("miniature:staged", **SMALL)


def test_steps_come_as_they_are_made_and_previews_to_whoever_listens(
    model: staged.LoadedModel,
) -> None:
    heard: list[Event] = []
    events = list(model.stream(PROMPT, seed=3, num_flow_steps=4, on_event=heard.append))
    last = events[-1]
    assert isinstance(last, Stopped) and isinstance(events[0], PlanWritten)
    assert [event.step for event in events[:-1]] == list(last.trajectory.steps[:-1])
    assert [e for e in heard if not isinstance(e, Previewed | TextPreviewed)] == events
    assert any(isinstance(event, Previewed) for event in heard)
    assert any(isinstance(event, TextPreviewed) for event in heard)
    assert "detector" in last.trajectory.provenance


def test_the_same_seed_draws_the_same_alone_and_side_by_side(model: staged.LoadedModel) -> None:
    alone = model.draw(PROMPT, seed=3)
    several = model.draw_many([PROMPT, "three hearts"], seeds=[3, 4])
    assert several[0].steps == alone.steps and several[0].complete
    assert several[1].prompt == "a photo of three hearts"
    assert model.draw(PROMPT, seed=4).images != alone.images


def test_one_steps_in_and_saves(model: staged.LoadedModel, tmp_path: Path) -> None:
    whole = model.draw(PROMPT, seed=3)
    plan = staged.Plan(instruction="Add a green ring.", description="a green ring")
    forked = model.fork(whole, at=0, step=plan)
    assert forked.steps[0].instruction == "add a green ring" and forked.complete  # type: ignore[union-attr]
    assert forked.provenance["forked"] == {"at": 0, "by_hand": True}
    assert model.fork(whole, at=1).steps == whole.steps
    saved = staged.save_trajectory(tmp_path / "out", forked)
    assert staged.load_trajectory(tmp_path / "out") == saved
    assert forked.last_sketch is not None
    assert forked.last_sketch.image.array().shape == (48, 48, 3)


def test_pictures_are_edited_and_asked_about(model: staged.LoadedModel, tmp_path: Path) -> None:
    drawn = model.draw("a photo of a red star", mode="one-shot").last_sketch
    assert drawn is not None and drawn.image.png is not None
    path = tmp_path / "star.png"
    path.write_bytes(drawn.image.png)
    edited = [
        model.draw("change the red star to blue", images=[image], mode="one-shot")
        for image in (path, str(path), drawn.image.png, drawn.image.array(), drawn.image)
    ]
    assert all(trajectory.steps == edited[0].steps for trajectory in edited)
    assert model.answer("describe the picture", [path])


def test_who_reads_no_further_ends_the_drawing(model: staged.LoadedModel) -> None:
    events = model.stream(PROMPT, seed=3)
    next(events)
    assert model._model.num_cached_tokens() > 0
    events.close()  # type: ignore[attr-defined]
    assert model._model.num_cached_tokens() == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dtype", "bfloat16"),
        ("quantization", "int8"),
        ("device", "meta"),
        ("checkpoint", "miniature:base"),
        ("lora", "out/lora"),
    ],
)
def test_a_call_cannot_change_what_was_loaded(
    model: staged.LoadedModel, name: str, value: str
) -> None:
    """It was left out without a word: whoever asked for int8 had pictures of whole weights."""
    image = staged.ImageRef.from_array(np.zeros((48, 48, 3), dtype=np.uint8))
    asking: list[Callable[..., object]] = [
        lambda **more: model.draw(PROMPT, **more),
        lambda **more: model.stream(PROMPT, **more),
        lambda **more: model.draw_many([PROMPT], **more),
        lambda **more: model.answer("describe the picture", [image], **more),
        lambda **more: model.fork(staged.Trajectory(prompt=PROMPT), at=0, **more),
    ]
    for ask in asking:
        with pytest.raises(ValueError, match=rf"^{name} is .*{value}.*staged.load\(.*{name}="):
            ask(**{name: value})
    same = {name: getattr(model.settings, name)}
    assert isinstance(model._like(same), DrawingModel)


def test_a_budget_that_would_hold_nothing_is_refused(model: staged.LoadedModel) -> None:
    with pytest.raises(ValueError, match="lmm_budget_usd is 5, and money is counted over the runs"):
        staged.load("miniature:fresh", lmm_budget_usd=5)
    with pytest.raises(ValueError, match="lmm_budget_usd is 5"):
        model.draw(PROMPT, lmm_budget_usd=5)


def test_what_fails_says_so(model: staged.LoadedModel) -> None:
    with pytest.raises(staged.DrawingFailed, match="did not end within 1 tokens") as caught:
        model.draw(PROMPT, max_text_tokens=1)
    assert caught.value.reason == "truncated" and caught.value.trajectory.prompt == PROMPT
    events = list(model.stream(PROMPT, max_text_tokens=1))
    assert isinstance(events[-1], Failed) and not any(isinstance(e, SketchDrawn) for e in events)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": "a photo of a dog"}, "it knows the shapes"),
        ({"prompt": " "}, "empty text"),
        ({"max_round": 2}, "did you mean 'max_rounds'"),
        ({"mode": "answer"}, "a question needs an image"),
        ({"images": [b"nothing"]}, "not a PNG"),
        ({"images": ["nowhere.png"]}, "nowhere.png"),
        ({"width": 47, "height": 47}, "47"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_drawn(
    model: staged.LoadedModel, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model.stream(**{"prompt": PROMPT, **arguments})  # type: ignore[arg-type]


def test_questions_are_not_asked_without_images(model: staged.LoadedModel) -> None:
    with pytest.raises(ValueError, match="is about an image"):
        model.draw_many(["what is it?"], mode="answer")


def test_a_fork_that_cannot_be_is_told(model: staged.LoadedModel) -> None:
    whole = staged.Trajectory(prompt=PROMPT)
    with pytest.raises(ValueError, match="at is 2, and the trajectory has 0 steps"):
        model.fork(whole, at=2)
    with pytest.raises(ValueError, match="was not taught 'add a dog'"):
        model.fork(whole, at=0, step=staged.Plan(instruction="add a dog", description="a dog"))


def test_the_documented_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "docs/python.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code.replace("max_rounds=2", "max_rounds=1, num_flow_steps=2"), names)
    assert (tmp_path / "out/forked/final.png").is_file()
    assert names["pixels"].shape == (48, 48, 3)  # type: ignore[attr-defined]


def test_type_checkers_are_told_of_the_same_names() -> None:
    stub = ast.parse(Path(staged.__file__).with_suffix(".pyi").read_text())
    told = {
        (alias.name, node.module)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {name for name, _ in told} == set(staged.__all__)
    for name, module in told:
        assert getattr(staged, name) is getattr(import_module(str(module)), name)


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, staged\n"
        "print(*sorted(m for m in sys.modules if m.startswith('staged')), 'numpy' in sys.modules)\n"
        "assert 'load' in dir(staged) and staged.Plan.__name__ == 'Plan'\n"
        "print('torch' in sys.modules)\n"
        "try: staged.nothing\n"
        "except AttributeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "staged False", "False", "module 'staged' has no attribute 'nothing'",
    ], done.stderr  # fmt: skip
