"""The miniature world's editor and language model, which pipelines are built and tested with."""

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from serving import serve

from data_pipelines.asking import Asking
from data_pipelines.inspection import plan_judgement_request, sketch_judgement_request
from data_pipelines.plan_sketch.gate import objection
from data_pipelines.plan_sketch.requests import drawn_later, scene_graph_request, steps_request
from data_pipelines.plan_sketch.settings import Gate
from data_pipelines.wording import Wording
from staged import images
from staged.backends.lmm.attempts import MemoryLog
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.request import Failure, LmmRequest, Reply
from staged.roles import RoleError
from staged.scene_graph import SceneGraph, delta, increments
from staged.shapes.language import instructions as say
from staged.shapes.language.prompts import read_description
from staged.shapes.players.arrange import Arranger
from staged.shapes.players.editor import FORESIGHT, EditorMistakes, ShapesEditor
from staged.shapes.players.lmm import connect, create_app, local_settings
from staged.shapes.players.misbehaviour import Misbehaviour
from staged.shapes.sight.detect import scene_from
from staged.shapes.world.render import render
from staged.shapes.world.scene import COLORS, KINDS, Kind, Scene, Shape, holds
from staged.shapes.world.spec import Thing
from staged.shapes.world.splits import held_out_pair
from staged.trajectory import Plan

WORDING = Wording()
STAR = Shape(kind="star", color="red", size="small", x=12, y=24)
RING = Shape(kind="ring", color="blue", size="small", x=34, y=24)
BOTH = Scene(shapes=(STAR, RING))
CAREFUL = ShapesEditor(
    mistakes=EditorMistakes(wrong_side=0, wrong_color=0, wrong_kind=0, lost_object=0)
)


def edit(text: str, scene: Scene | None = BOTH, *, seed: int = 0, **mistakes: float) -> Scene:
    editor = replace(CAREFUL, mistakes=replace(CAREFUL.mistakes, **mistakes))
    before = None if scene is None else render(scene)
    return scene_from(editor.edit(before, text, width=48, height=48, seed=seed))


def looks(scene: Scene) -> set[str]:
    return {f"{shape.color} {shape.kind}" for shape in scene.shapes}


@pytest.mark.parametrize("seed", range(5))
def test_the_editor_draws_what_each_kind_of_instruction_says(seed: int) -> None:
    assert looks(edit("add a green heart", seed=seed)) == {"red star", "blue ring", "green heart"}
    assert looks(edit("remove the red star", seed=seed)) == {"blue ring"}
    assert looks(edit("change the star to pink", seed=seed)) == {"pink star", "blue ring"}
    assert looks(edit("make the ring green", seed=seed)) == {"red star", "green ring"}
    assert looks(edit("replace the ring with a cross", seed=seed)) == {"red star", "blue cross"}
    moved = edit("move the red star to the right of the blue ring", seed=seed)
    a, b = (next(s for s in moved.shapes if s.kind == kind) for kind in ("star", "ring"))
    assert holds("right of", a, b)
    swapped = edit("swap the red star and the blue ring", seed=seed)
    assert {(s.kind, s.x) for s in swapped.shapes} == {("star", RING.x), ("ring", STAR.x)}


def test_what_an_instruction_does_not_name_stays_where_it_is() -> None:
    after = edit("add a green heart above the star")
    assert STAR in after.shapes and RING in after.shapes
    heart = next(s for s in after.shapes if s.kind == "heart")
    assert holds("above", heart, STAR)


@pytest.mark.parametrize("kind", KINDS)
def test_a_color_that_nobody_named_is_kept_only_where_training_may_show_it(kind: Kind) -> None:
    """A green crescent became a green star, which is held out, and stood in the training data."""
    other = next(k for k in KINDS if k != kind)
    for color in COLORS:
        before = Scene(shapes=(Shape(kind=other, color=color, size="large", x=24, y=24),))
        told = say.Replace(target=say.Ref(thing=Thing(kind=other)), thing=Thing(kind=kind))
        [drawn] = Arranger(rng=np.random.default_rng(0)).apply(before, told).shapes
        assert drawn.kind == kind and not held_out_pair(drawn.color, kind)
        assert (drawn.color == color) == (not held_out_pair(color, kind))


def test_a_first_step_needs_no_image_and_leaves_room_for_the_rest() -> None:
    prompt = "a photo of a red star right of a blue ring, and a green heart right of the red star"
    for seed in range(8):
        scene = edit(f"add a red star{FORESIGHT}{prompt}", None, seed=seed)
        scene = edit(f"add a blue ring left of the red star{FORESIGHT}{prompt}", scene, seed=seed)
        scene = edit("add a green heart right of the red star", scene, seed=seed)
        assert looks(scene) == {"red star", "blue ring", "green heart"}


def test_the_seed_alone_decides_a_drawing() -> None:
    draw = [CAREFUL.edit(None, "add a star", width=48, height=48, seed=s) for s in (1, 1, 2)]
    assert (draw[0] == draw[1]).all() and (draw[0] != draw[2]).any()


@pytest.mark.parametrize(
    ("mistake", "text", "expected"),
    [
        ("lost_object", "add a green heart", 2),
        ("wrong_kind", "add a green heart", 3),
        ("wrong_color", "add a green heart", 3),
    ],
)
def test_each_mistake_is_made_when_it_is_asked_for(mistake: str, text: str, expected: int) -> None:
    scene = edit(text, **{mistake: 1.0})
    assert len(scene.shapes) == expected
    assert looks(scene) != {"red star", "blue ring", "green heart"}


def test_a_wrong_side_is_the_other_side() -> None:
    scene = edit("add a green heart above the star", wrong_side=1.0)
    heart = next(s for s in scene.shapes if s.kind == "heart")
    assert holds("below", heart, STAR)


def test_mistakes_come_at_their_rate() -> None:
    wrong = sum(
        "green heart" not in looks(edit("add a green heart", seed=s, wrong_color=0.3))
        for s in range(150)
    )
    assert 25 < wrong < 65


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("paint me a masterpiece", "not understood"),
        ("remove the green heart", "nothing to edit"),
        ("add five large hearts", "no room"),
    ],
)
def test_what_cannot_be_drawn_is_a_typed_error(text: str, reason: str) -> None:
    with pytest.raises(RoleError) as error:
        edit(text)
    assert error.value.reason == reason
    assert "(" not in str(error.value), "an object of ours, written out"


def ask(request: LmmRequest[Any], misbehaviour: Misbehaviour | None = None) -> Any:
    async def go() -> Any:
        async with connect(misbehaviour=misbehaviour) as client:
            return await client.ask(request)

    reply = asyncio.run(go())
    return reply.value if isinstance(reply, Reply) else reply


def graph_of(prompt: str) -> SceneGraph:
    answer = ask(scene_graph_request(WORDING, prompt))
    graph: SceneGraph = answer.graph()
    return graph


def test_prompts_become_graphs_also_where_they_rest_on_knowledge() -> None:
    graph = graph_of("a photo of a red star left of a blue ring")
    assert [o.class_name for o in graph.objects] == ["star", "ring"]
    assert [r.name for r in graph.relations] == ["left of"]
    assert graph_of("a photo of a circle the colour of a ripe banana").attributes[0].value == (
        "yellow"
    )
    assert len(graph_of("a photo of as many stars as a tricycle has wheels").objects) == 3


def test_steps_get_an_instruction_and_a_description_each() -> None:
    graph = graph_of("a photo of a red star left of a blue ring")
    path = increments(graph, seed=1, max_steps=4)
    deltas = tuple(delta(a, b) for a, b in zip((SceneGraph(), *path), path, strict=False))
    later = drawn_later(deltas, {})
    answer = ask(
        steps_request(WORDING, "a photo of a red star left of a blue ring", {}, deltas, later)
    )
    assert len(answer.steps) == 2
    assert read_description(answer.steps[-1].description).num_shapes == 2


def judge(
    prompt: str, before: Scene | None, after: Scene, gate: Gate | None = None
) -> tuple[str, str] | None:
    """What the judge objects to in the last step of a prompt that was all drawn but its end."""
    graph = graph_of(prompt)
    start = SceneGraph() if before is None else graph.subgraph(o.id for o in graph.objects[:-1])

    async def go() -> tuple[str, str] | None:
        async with connect() as client:
            found = await objection(
                Asking(client),
                WORDING,
                gate or Gate(),
                delta(start, graph),
                None if before is None else images.encode_png(render(before)),
                images.encode_png(render(after)),
                whole=True,
                seed=0,
            )
        return found and (found.reason, found.detail)

    return asyncio.run(go())


@pytest.mark.parametrize("gate", [Gate(), Gate(both_orders=True)], ids=["", "both orders"])
def test_the_judge_sees_what_is_and_what_is_not_there(gate: Gate) -> None:
    prompt = "a photo of a red star left of a blue ring"
    alone = Scene(shapes=(STAR,))
    assert judge(prompt, alone, BOTH, gate) is None
    assert judge(prompt, None, BOTH, gate) is None
    green = Scene(shapes=(STAR, replace(RING, color="green")))
    wrong = "attribute not as planned", "Is the ring blue? it is not so"
    assert judge(prompt, alone, green, gate) == wrong
    other_side = Scene(shapes=(replace(STAR, x=34), replace(RING, x=12)))
    wrong = "relation not as planned", "Is the star left of the ring? it is not so"
    assert judge(prompt, None, other_side, gate) == wrong
    wrong = "object not as planned", "Is there a ring? it is not so"
    assert judge(prompt, alone, alone, gate) == wrong


def test_the_judge_notices_when_something_else_changed() -> None:
    prompt = "a photo of a red star left of a blue ring"
    alone = Scene(shapes=(STAR,))
    moved = Scene(shapes=(replace(STAR, y=8), RING))
    wrong = judge(prompt, alone, moved)
    assert wrong == (
        "something else changed",
        "Is the star as it was in the other image, and in the same place? it is not so",
    )
    extra = Scene(shapes=(*BOTH.shapes, replace(STAR, kind="drop", y=40)))
    assert judge(prompt, alone, extra) == ("something extra", "a red drop")
    assert judge(prompt, alone, extra, Gate(max_extras=1)) is None
    twice = Scene(shapes=(*BOTH.shapes, replace(STAR, y=40)))
    assert judge(prompt, alone, twice) == (
        "number not as planned", "Is there exactly 1 star? it is not so"
    )  # fmt: skip
    darker = replace(BOTH, background=(150, 172, 172))
    assert judge(prompt, alone, darker) == ("something else changed", "kept: 1 of 5")


def test_shapes_that_are_alike_are_not_confused_by_the_judge() -> None:
    shapes = [Shape(kind="drop", color="red", size="small", x=x, y=24) for x in (8, 24, 40)]
    for last in range(3):
        before = Scene(shapes=tuple(s for i, s in enumerate(shapes) if i != last))
        assert judge("a photo of three drops", before, Scene(shapes=tuple(shapes))) is None
        moved = [replace(s, y=40 if i == (last + 1) % 3 else 24) for i, s in enumerate(shapes)]
        wrong = judge("a photo of three drops", before, Scene(shapes=tuple(moved)))
        assert wrong is not None and wrong[0] == "something else changed"


def test_plans_are_inspected_against_the_prompt() -> None:
    prompt = "a photo of a red star left of a blue ring"

    def inspect(instruction: str, description: str) -> Any:
        plan = Plan(instruction=instruction, description=description)
        return ask(plan_judgement_request(WORDING, prompt, None, plan))

    fine = inspect("add a red star", "a red star")
    assert fine.verdict == "accept" and "still to come" in fine.critique
    wrong = inspect("add a green star", "a green star")
    assert wrong.verdict == "revise" and wrong.correction == "make the green star red"
    turned = inspect("add a blue ring left of the red star", "a blue ring left of a red star")
    assert turned.verdict == "revise" and turned.correction.startswith("move the blue ring")


def test_sketches_are_inspected_and_the_correction_corrects_them() -> None:
    plan = Plan(instruction="add a blue ring", description="a red star left of a blue ring")
    for wrong in (
        Scene(shapes=(STAR, replace(RING, color="green"))),
        Scene(shapes=(STAR, replace(RING, kind="cross"))),
        Scene(shapes=(replace(STAR, x=34), replace(RING, x=12))),
        Scene(shapes=(STAR,)),
        Scene(shapes=(*BOTH.shapes, replace(STAR, y=40))),
        Scene(shapes=(*BOTH.shapes, replace(RING, kind="heart", color="pink", y=8))),
    ):
        shown = images.encode_png(render(wrong))
        answer = ask(sketch_judgement_request(WORDING, "p", plan, None, shown))
        assert answer.verdict == "revise"
        corrected = edit(answer.correction, wrong)
        shown = images.encode_png(render(corrected))
        again = ask(sketch_judgement_request(WORDING, "p", plan, None, shown))
        assert again.verdict == "accept", (answer.correction, again.critique)


PLAN = Plan(instruction="add a red star", description="a red star")
INSPECTION = plan_judgement_request(WORDING, "a photo of a red star", None, PLAN)


@pytest.mark.parametrize(
    ("misdeed", "kind"),
    [
        ("rate_limit", "rate_limit"),
        ("server_error", "server_error"),
        ("refusal", "refusal"),
        ("content_filter", "content_filter"),
        ("truncated", "truncated"),
        ("wrong_json", "invalid_output"),
        ("wrong_schema", "invalid_output"),
        ("slow", "timeout"),
    ],
)
def test_over_a_real_socket_every_misdeed_is_a_failure_of_its_kind(misdeed: str, kind: str) -> None:
    app = create_app(Misbehaviour(**{misdeed: 1.0}, slow_s=0.5))
    log = MemoryLog()

    async def go(url: str) -> Any:
        settings = replace(local_settings(), base_url=url, max_attempts=2, timeout_s=0.2)
        settings = settings if misdeed == "slow" else replace(settings, timeout_s=20)
        async with LmmClient(settings, log=log) as client:
            return await client.ask(INSPECTION)

    with serve(app) as url:
        failure = asyncio.run(go(url))
    assert isinstance(failure, Failure) and failure.kind == kind


def test_over_a_real_socket_a_server_that_mostly_misbehaves_is_outlasted() -> None:
    app = create_app(
        Misbehaviour(
            rate_limit=0.2, retry_after_s=0.01, server_error=0.2, wrong_json=0.2, wrong_schema=0.1
        )
    )
    log = MemoryLog()
    requests = [
        plan_judgement_request(WORDING, f"a photo of a {color} star", None, PLAN)
        for color in ("red", "blue", "green", "pink", "black")
    ]

    async def go(url: str) -> list[Any]:
        settings = replace(local_settings(), base_url=url, max_attempts=40)
        async with LmmClient(settings, log=log) as client:
            return await asyncio.gather(*(client.ask(request) for request in requests))

    with serve(app) as url:
        replies = asyncio.run(go(url))
    assert [reply.value.verdict for reply in replies] == ["accept"] + ["revise"] * 4
    assert sum(len(made) for made in log.by_key.values()) > len(requests)


def test_a_contradiction_looks_like_any_other_answer() -> None:
    assert ask(INSPECTION).verdict == "accept"
    assert ask(INSPECTION, Misbehaviour(contradiction=1.0)).verdict == "revise"


def test_misdeeds_depend_on_the_attempt_and_not_on_its_time() -> None:
    manners = Misbehaviour(refusal=0.3, slow=0.3, seed=4)
    bodies = [{"n": n} for n in range(200)]
    first = [manners.choose(body, "0") for body in bodies]
    assert first == [manners.choose(body, "0") for body in bodies]
    assert first != [manners.choose(body, "1") for body in bodies]
    assert 30 < first.count("refusal") < 90
    assert first != [replace(manners, seed=5).choose(body, "0") for body in bodies]


def test_a_request_that_the_model_does_not_know_is_refused() -> None:
    failure = ask(replace(INSPECTION, purpose="write_poem"))
    assert isinstance(failure, Failure) and failure.kind == "bad_request"
    assert ask(scene_graph_request(WORDING, "a photo of my dog")).kind == "bad_request"


def test_rates_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="refusal"):
        Misbehaviour(refusal=1.5)
    with pytest.raises(ValueError, match="sum"):
        Misbehaviour(refusal=0.6, slow=0.6)
    with pytest.raises(ValueError, match="wrong_side"):
        EditorMistakes(wrong_side=-0.1)


def test_editing_keeps_the_background() -> None:
    scene = replace(BOTH, background=(165, 180, 170))
    drawn = edit("remove the star", scene)
    assert np.abs(np.subtract(drawn.background, scene.background)).max() <= 2
