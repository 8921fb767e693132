"""The trajectory: legal orders, exact round trips, strict reading."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from staged.trajectory import (
    MAX_STEPS,
    MAX_TEXT_CHARS,
    Answer,
    ImageRef,
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Step,
    Stop,
    Thought,
    Trajectory,
    TrajectoryError,
    moves,
)

PLAN = Plan(instruction="draw a red circle", description="a red circle")
SKETCH = Sketch(image=ImageRef(name="0.png"), seed=7, num_flow_steps=20)
STOP = Stop()


def inspection(target: str, verdict: str) -> Inspection:
    return Inspection(target=target, verdict=verdict, critique="it was looked at")  # type: ignore[arg-type]


STEPS: dict[str, Step] = {
    "p": PLAN,
    "s": SKETCH,
    "P": inspection("plan", "accept"),
    "X": inspection("plan", "revise"),
    "S": inspection("sketch", "accept"),
    "Y": inspection("sketch", "revise"),
    "r": Refinement(instruction="make it red"),
    "a": Answer(text="two"),
    "t": Thought(text="<think>a circle, red</think>"),
    ".": STOP,
}


def build(letters: str) -> tuple[Step, ...]:
    return tuple(STEPS[letter] for letter in letters)


@pytest.mark.parametrize(
    "letters",
    [
        "ps.",
        "psps.",
        "pPsS.",
        "pXrps.",
        "pXrpXrpPsYrsYrsSps.",
        "pPPsSS.",
        "s.",
        "sYrsS.",
        "tsYrs.",
        "tstsYrsSts.",
        "tsa.",
        "tstsSa.",
        "a.",
    ],
)
def test_legal_orders_are_complete_and_every_prefix_is_representable(letters: str) -> None:
    steps = build(letters)
    Trajectory(prompt="x", steps=steps).validate()
    for length in range(len(steps)):
        partial = Trajectory(prompt="x", steps=steps[:length])
        partial.validate(complete=False)
        with pytest.raises(TrajectoryError) as caught:
            partial.validate()
        assert caught.value.index == length


@pytest.mark.parametrize(
    ("letters", "index"),
    [
        (".", 0),
        ("r", 0),
        ("P", 0),
        ("S", 0),
        ("pp", 1),
        ("p.", 1),
        ("pr", 1),
        ("pS", 1),
        ("pPr", 2),
        ("pXs", 2),
        ("pX.", 2),
        ("pXrs", 3),
        ("pXrr", 3),
        ("pss", 2),
        ("psr", 2),
        ("psP", 2),
        ("psYs", 3),
        ("psYrp", 4),
        ("psYr.", 4),
        ("ps.p", 3),
        ("ps..", 3),
        ("sp", 1),
        ("aa", 1),
        ("as", 1),
        ("psa", 2),
        ("pt", 1),
        ("st", 1),
        ("tt", 1),
        ("tp", 1),
        ("ta", 1),
        ("tsp", 2),
        ("tss", 2),
        ("tstp", 3),
        ("tsas", 3),
        ("sa", 1),
        ("tsYt", 3),
    ],
)
def test_illegal_orders_name_the_offending_step(letters: str, index: int) -> None:
    with pytest.raises(TrajectoryError, match=rf"steps\[{index}\]") as caught:
        Trajectory(prompt="x", steps=build(letters))
    assert caught.value.index == index


@given(st.text(alphabet="psPXSYrat.", max_size=12))
@settings(max_examples=300)
def test_the_order_agrees_with_the_grammar_as_a_regular_expression(letters: str) -> None:
    # The specification's own words, as an independent reading of the same rules.
    sketching = "s(S|Yrs)*"
    complete = re.compile(rf"(p(P|Xrp)*{sketching})+\.|{sketching}\.|(t{sketching})+a?\.|a\.")
    try:
        Trajectory(prompt="x", steps=build(letters)).validate()
        accepted = True
    except TrajectoryError:
        accepted = False
    assert accepted == bool(complete.fullmatch(letters))


@given(st.lists(st.integers(0, 10), max_size=20))
def test_any_walk_along_legal_next_is_accepted_and_everything_else_refused(walk: list[int]) -> None:
    trajectory = Trajectory(prompt="x")
    by_move = {"plan": "p", "sketch": "s", "answer": "a", "think": "t", "stop": "."}
    for choice in walk:
        legal = trajectory.legal_next()
        for letter in STEPS:
            step = STEPS[letter]
            try:
                grown = trajectory.extend(step)
                assert moves(grown.steps)[-1] in legal
            except TrajectoryError as error:
                assert error.index == len(trajectory.steps)
        if not legal:
            break
        move = legal[choice % len(legal)]
        options = {"inspect plan": "PX", "inspect sketch": "SY"}.get(move) or by_move.get(move, "r")
        trajectory = trajectory.extend(STEPS[options[choice % len(options)]])


TEXT = st.text(min_size=1, max_size=40).filter(lambda text: text.strip())
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    def texts() -> str:
        return draw(TEXT)

    def step(move: str) -> Step:
        loss = draw(st.booleans())
        match move.split():
            case ["plan"]:
                return Plan(instruction=texts(), description=texts(), loss=loss)
            case ["sketch"]:
                return Sketch(
                    image=ImageRef(name=f"{draw(st.integers(0, 99))}.png"),
                    seed=draw(st.none() | st.integers(0, 2**63 - 1)),
                    num_flow_steps=draw(st.integers(0, 200)),
                    loss=loss,
                )
            case ["inspect", target]:
                verdict = draw(st.sampled_from(["accept", "revise"]))
                return Inspection(target=target, verdict=verdict, critique=texts(), loss=loss)  # type: ignore[arg-type]
            case ["refine", _]:
                return Refinement(instruction=texts(), loss=loss)
            case ["answer"]:
                return Answer(text=texts(), loss=loss)
            case ["think"]:
                return Thought(text=texts(), loss=loss)
        return Stop(loss=loss)

    result = Trajectory(
        prompt=texts(),
        system=draw(st.none() | TEXT),
        task=draw(st.none() | TEXT),
        inputs=tuple(ImageRef(name=f"i{i}.webp") for i in range(draw(st.integers(0, 2)))),
        scene_graph=draw(st.none() | st.dictionaries(st.text(max_size=5), JSON, max_size=3)),
        provenance=draw(st.dictionaries(st.text(max_size=5), JSON, max_size=3)),
    )
    for _ in range(draw(st.integers(0, 8))):
        legal = result.legal_next()
        if not legal:
            break
        result = result.extend(step(draw(st.sampled_from(legal))))
    return result


@given(trajectories())
@settings(max_examples=150)
def test_json_round_trip_is_lossless_and_canonical(trajectory: Trajectory) -> None:
    text = trajectory.to_json()
    again = Trajectory.from_json(text)
    assert again == trajectory
    assert again.to_json() == text
    assert Trajectory.from_json(text.encode()) == trajectory


def test_without_a_system_text_the_json_is_what_it_always_was() -> None:
    assert "system" not in Trajectory(prompt="x").to_dict()
    assert Trajectory(prompt="x", system="Think first.").to_dict()["system"] == "Think first."


def test_the_largest_legal_trajectory_can_be_read_back() -> None:
    plan = Plan(
        instruction="\x01" * (MAX_TEXT_CHARS - 1) + "a", description="\U0001f600" * MAX_TEXT_CHARS
    )
    steps = (plan, SKETCH) * (MAX_STEPS // 2)
    trajectory = Trajectory(prompt="x", steps=steps)
    assert Trajectory.from_json(trajectory.to_json().encode()) == trajectory


def valid() -> dict[str, object]:
    return Trajectory(prompt="x", steps=(*build("pPsYr"), SKETCH, STOP)).to_dict()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("version",), 2, "version: 2 is not 1"),
        (("version",), True, "version: expected int"),
        (("promt",), "x", "unknown key 'promt'; did you mean 'prompt'"),
        (("prompt",), 3, r"trajectory\.prompt: expected str"),
        (("prompt",), " ", "prompt: empty"),
        (("prompt",), "a" * (MAX_TEXT_CHARS + 1), "exceed the limit"),
        (("steps",), {}, r"trajectory\.steps: expected list"),
        (("steps",), [{"step": "stop", "loss": True}] * 999, "999 exceed"),
        (("steps", 0, "loss"), 1, r"steps\[0\]\.loss: expected bool"),
        (("steps", 0, "colour"), "red", r"steps\[0\]: unknown key 'colour'"),
        (("steps", 0, "instruction"), None, r"steps\[0\]\.instruction: expected str"),
        (("steps", 1, "verdict"), "maybe", r"steps\[1\]: inspection verdict: 'maybe'"),
        (("steps", 1, "target"), "prompt", r"steps\[1\]: inspection target: 'prompt'"),
        (("steps", 1, "verdict"), "revise", r"steps\[2\]: sketch may not come"),
        (("steps", 2, "step"), "paint", r"steps\[2\]\.step: 'paint'"),
        (("steps", 2, "image"), "../../etc/passwd", r"steps\[2\]: image: image name"),
        (("steps", 2, "image"), "0.exe", r"steps\[2\]: image: image name"),
        (("steps", 2, "seed"), -1, r"steps\[2\]: sketch seed"),
        (("steps", 2, "num_flow_steps"), True, r"steps\[2\]\.num_flow_steps: expected int"),
        (("inputs",), ["0.png"] * 99, "99 exceed"),
        (("inputs",), [3], r"inputs\[0\]: expected the name"),
        (("scene_graph",), [], r"scene_graph: expected dict"),
        (("provenance",), {"a": [0] * 99_999}, "provenance: more than"),
    ],
)
def test_malformed_json_is_refused_with_its_place(
    path: tuple[str | int, ...], value: object, message: str
) -> None:
    data = valid()
    node: object = data
    for key in path[:-1]:
        node = node[key]  # type: ignore[index]
    node[path[-1]] = value  # type: ignore[index]
    with pytest.raises(ValueError, match=message):
        Trajectory.from_json(json.dumps(data))


def test_missing_keys_are_refused() -> None:
    data = valid()
    del data["steps"]
    with pytest.raises(ValueError, match="missing key 'steps'"):
        Trajectory.from_dict(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ('{"version":1,', "not valid JSON"),
        (b"\xff", "not valid JSON"),
        ('{"version":1,"version":1}', "duplicate key 'version'"),
        ('{"version":NaN}', "NaN is not JSON"),
        ('{"version":' + "9" * 9999 + "}", "not valid JSON"),
        ('{"version":1,"prompt":"\\ud800","steps":[]}', "not valid Unicode"),
        ('{"version":1,"prompt":"x","steps":[],"provenance":{"a":1e999}}', "not plain JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "expected an object"),
    ],
)
def test_text_that_is_not_strict_json_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trajectory.from_json(text)


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, float("nan"), 2**64, b"x", "\ud800"])
def test_provenance_that_would_not_survive_json_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="provenance"):
        Trajectory(prompt="x", provenance={"key": value})


def test_provenance_is_a_copy() -> None:
    cost = {"usd": 1.0}
    trajectory = Trajectory(prompt="x", provenance={"cost": cost})
    cost["usd"] = 2.0
    assert trajectory.provenance == {"cost": {"usd": 1.0}}


def test_an_image_without_a_name_is_not_written_silently() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    trajectory = Trajectory(prompt="x", steps=(Sketch(image=ImageRef.from_array(pixels)),))
    with pytest.raises(ValueError, match=r"steps\[0\]: the image has no name"):
        trajectory.to_json()
    named = trajectory.with_images([replace(trajectory.images[0], name="0.png")])
    assert Trajectory.from_json(named.to_json()).images == (ImageRef(name="0.png"),)


def test_images_survive_encoding_exactly() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert (ImageRef.from_array(pixels).array() == pixels).all()


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)],
)
def test_arrays_that_are_no_images_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected \\(h, w, 3\\) uint8"):
        ImageRef.from_array(pixels)


def test_decoding_is_bounded_and_strict() -> None:
    ref = ImageRef.from_array(np.zeros((40, 50, 3), np.uint8))
    assert ref.png is not None
    with pytest.raises(ValueError, match="exceeds the limit of 1999 pixels"):
        ref.array(max_pixels=1999)
    with pytest.raises(ValueError, match="does not decode"):
        ImageRef(png=ref.png[: len(ref.png) // 2]).array()
    with pytest.raises(ValueError, match="not a PNG, WebP or JPEG"):
        ImageRef(png=b"GIF89a").array()
    with pytest.raises(ValueError, match=r"'0\.png' is not loaded"):
        ImageRef(name="0.png").array()


def test_what_the_loop_asks_of_a_trajectory() -> None:
    trajectory = Trajectory(prompt="x", steps=build("pXrpsYrs"))
    assert trajectory.last_plan == PLAN
    assert trajectory.last_sketch == SKETCH
    assert trajectory.num_flow_steps == 40
    assert trajectory.inspection_target == "sketch"
    assert Trajectory(prompt="x", steps=build("p")).inspection_target == "plan"
    assert Trajectory(prompt="x", steps=build("pX")).inspection_target is None
    assert Trajectory(prompt="x", steps=build("ps")).legal_next() == (
        "inspect sketch",
        "stop",
        "plan",
    )
