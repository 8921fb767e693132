"""The published model's own ways: thinking before it draws, and looking with the ViT alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from learning import learn

from staged.backends.bagel import BagelPlayer
from staged.backends.bagel_settings import BagelSettings
from staged.engine.context import Context
from staged.engine.engine import Engine
from staged.generate.command import main
from staged.generate.settings import DrawSettings
from staged.images import encode_png
from staged.loops.events import Event, SketchDrawn, Stopped, ThoughtWritten
from staged.loops.policy import Policy
from staged.loops.roles import Roles
from staged.loops.staged import StagedLoop
from staged.model import checkpoint
from staged.model.flows import Flows, FlowSettings, Guidance
from staged.roles import RoleError, StepRequest
from staged.trajectory import Answer, ImageRef, Sketch, Stop, Thought, Trajectory, moves
from staged.trajectory_folder import load_trajectory

SYSTEM = "Think, then draw."
PROMPT = "a photo of a star"
THOUGHT = Thought(text="<think>a star is red</think>")
FLOW = FlowSettings(
    num_flow_steps=3,
    timestep_shift=1.0,
    guidance=Guidance(text_scale=2.0, image_scale=1.5, interval=(0, 1), renorm="text_channel"),
)
SETTINGS = BagelSettings(flows=Flows().each(lambda _: FLOW), max_text_tokens=60)
INPUT = ImageRef.from_array(tiny.picture(5, 16, 8))


def thought_about(*inputs: ImageRef) -> Trajectory:
    return Trajectory(prompt=PROMPT, system=SYSTEM, inputs=inputs, steps=(THOUGHT,))


@pytest.fixture(scope="module")
def thinker() -> Engine:
    steps = (THOUGHT, tiny.sketch(0), Stop())
    return learn(Trajectory(prompt=PROMPT, system=SYSTEM, steps=steps), 90)


def saved(engine: Engine, folder: Path) -> str:
    checkpoint.save(
        folder,
        model=engine.model,
        autoencoder=engine.codec.autoencoder,
        tokenizer=engine.tokenizer,
        flows=Flows().each(lambda _: FLOW),
    )
    return str(folder)


def test_a_model_that_learned_to_think_does_so_and_then_draws(thinker: Engine) -> None:
    events: list[Event] = []
    roles = Roles.of(BagelPlayer(thinker, SETTINGS), "tiny")
    loop = StagedLoop(roles, Policy(mode="one-shot", think=True))
    [made] = loop.run([Trajectory(prompt=PROMPT, system=SYSTEM)], [0], events.append)
    assert made.steps[0] == THOUGHT and moves(made.steps) == ("think", "sketch", "stop")
    assert [type(event) for event in events] == [ThoughtWritten, SketchDrawn, Stopped]


@pytest.mark.parametrize("inputs", [(), (INPUT,), (INPUT, INPUT)], ids=["t2i", "edit", "two"])
def test_a_thought_is_drawn_in_the_contexts_of_the_reference(inputs: tuple[ImageRef, ...]) -> None:
    """As its inferencer builds them: the prompt and what was thought of it go together without
    text; without images stand the texts that were given, and no thought."""
    engine = tiny.engine()
    whole, no_text, no_images = Context(), Context(), Context()
    for context in (whole, no_text, no_images):
        engine.append_text([context], [SYSTEM])
    for ref in inputs:
        for context in (whole, no_text):
            engine.append_images([context], [ref.array()])
    for context in (whole, no_images):
        engine.append_text([context], [PROMPT])
    engine.append_text([whole], [THOUGHT.text])
    height, width = (16, 8) if inputs else (16, 16)
    [drawing] = engine.draw(
        [whole], [no_text], [no_images], sizes=[(height, width)], seeds=[3], settings=[FLOW]
    )
    request = StepRequest(trajectory=thought_about(*inputs), moves=("sketch",), seed=3)
    [sketch] = BagelPlayer(engine, SETTINGS).draw([request])
    assert isinstance(sketch, Sketch)
    drawn = sketch.image.array().astype(int)
    assert np.abs(drawn - drawing.pixels).max() <= 1  # of 255: contexts were read one by one
    other = replace(request, trajectory=replace(request.trajectory, system=None))
    [without] = BagelPlayer(engine, SETTINGS).draw([other])
    assert isinstance(without, Sketch)
    assert np.abs(without.image.array().astype(int) - drawn).max() > 8  # that it stood there counts


def test_to_understand_images_are_read_as_vit_copies_alone() -> None:
    engine = tiny.engine()
    context = Context()
    engine.append_images([context], [INPUT.array()], vision_only=True)
    rows, columns = engine.codec.grids(16, 8).vision
    assert context.num_tokens == rows * columns + 2 and context.position == 1
    assert context.has_images


def test_an_answer_of_the_vit_alone_is_learned_and_given() -> None:
    steps = (Answer(text="it is a red star"), Stop())
    asked = Trajectory(prompt=PROMPT, inputs=(INPUT,))
    engine = learn(replace(asked, steps=steps), 60, vision_only=True)
    request = StepRequest(trajectory=asked, moves=("answer",), seed=0)
    player = BagelPlayer(engine, replace(SETTINGS, vision_only=True))
    assert player.write([request]) == [steps[0]]


def test_a_text_that_is_no_thought_is_no_step() -> None:
    engine = learn(Trajectory(prompt=PROMPT, steps=(Answer(text="a star"),)), 40)
    request = StepRequest(trajectory=Trajectory(prompt=PROMPT), moves=("think",), seed=0)
    [failure] = BagelPlayer(engine, SETTINGS).write([request])
    # Its beginning is held to; a model that was taught no thoughts never closes one.
    assert isinstance(failure, RoleError) and failure.reason == "protocol"
    assert "<think>" in str(failure)


def test_the_command_thinks_and_draws(
    thinker: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [PROMPT, "--checkpoint", saved(thinker, tmp_path / "model"), "--think"]
    out = tmp_path / "out"
    assert main([*argv, "--system-prompt", SYSTEM, "--out", str(out)]) == 0
    assert f"think    {THOUGHT.text}" in capsys.readouterr().out
    made = load_trajectory(out)
    assert made.system == SYSTEM and moves(made.steps) == ("think", "sketch", "stop")
    assert (
        THOUGHT.text.replace("<", "&lt;").replace(">", "&gt;") in (out / "report.html").read_text()
    )
    with pytest.raises(ValueError, match=r"system_prompt was 'Think, then draw.' and is None"):
        main([*argv, "--out", str(out)])


def test_the_command_answers(
    thinker: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = (Answer(text="<think>red, five tips</think> it is a star"), Stop())
    question = "describe the picture"
    asked = Trajectory(prompt=question, inputs=(INPUT,), system=SYSTEM, steps=steps)
    model = saved(learn(asked, 90, vision_only=True), tmp_path / "model")
    (tmp_path / "in.png").write_bytes(encode_png(INPUT.array()))
    argv = [question, "--checkpoint", model, "--preset", "understand", "--think"]
    argv += ["--system-prompt", SYSTEM, "--image", str(tmp_path / "in.png")]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    assert f"answer   {steps[0].text}" in capsys.readouterr().out
    assert load_trajectory(tmp_path / "out").steps == steps
    decides = json.loads((tmp_path / "out" / "settings.json").read_text())["decides"]
    assert decides["vision_only"] and decides["max_text_tokens"] == 1000


def test_thinking_asks_for_itself_in_words_that_fit() -> None:
    draw = DrawSettings(checkpoint="x", mode="one-shot", think=True).system
    answer = DrawSettings(checkpoint="x", mode="answer", think=True).system
    assert draw is not None and answer is not None and draw != answer
    assert all(tag in text for text in (draw, answer) for tag in ("<think>", "</think>"))
    assert DrawSettings(checkpoint="x").system is None
    given = DrawSettings(checkpoint="x", mode="one-shot", think=True, system_prompt="Think.")
    assert given.system == "Think."


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mode": "staged"}, "a staged trajectory plans instead"),
        ({"mode": "one-shot", "sketcher": "editing"}, "who reads no thoughts"),
        ({"mode": "one-shot", "checkpoint": "miniature:base"}, "was never taught to"),
    ],
)
def test_thinking_where_nobody_can_is_refused(settings: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DrawSettings(**{"checkpoint": "x", "think": True, **settings})
