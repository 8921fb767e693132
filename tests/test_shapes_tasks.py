from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from staged.shapes.__main__ import main
from staged.shapes.language.faults import (
    Extra,
    Missing,
    WrongKind,
    WrongLook,
    WrongNumber,
    WrongPlace,
)
from staged.shapes.language.prompts import read_prompt
from staged.shapes.sight.detect import detect
from staged.shapes.sight.verdict import relations_between, satisfied
from staged.shapes.tasks import (
    ALL_TASKS,
    HELD_OUT_TASKS,
    TASKS,
    sample_prompt,
    sample_prompts,
    sample_scene,
)
from staged.shapes.world.facts import FACTS, ColorFact
from staged.shapes.world.render import render
from staged.shapes.world.scene import COLORS, KINDS, RELATIONS, Scene, Shape
from staged.shapes.world.spec import Spec, Thing
from staged.shapes.world.splits import held_out_fact, held_out_pair, held_out_relation, is_held_out

STAR = Shape(kind="star", color="red", size="small", x=10, y=24)
RING = Shape(kind="ring", color="blue", size="small", x=38, y=24)


def judge(text, *shapes):
    return satisfied(read_prompt(text).spec, detect(render(Scene(shapes=shapes))))


@pytest.mark.parametrize("split", ["train", "test"])
def test_sampled_scenes_satisfy_their_prompts_by_pixels(split):
    rng = np.random.default_rng(3)
    wrong = []
    for task in ALL_TASKS:
        for _ in range(40):
            prompt = sample_prompt(task, rng, split)
            assert read_prompt(prompt.text) == prompt.request
            verdict = satisfied(prompt.spec, detect(render(sample_scene(prompt.spec, rng, split))))
            wrong += [] if verdict.exact else [(prompt.text, verdict.reasons)]
    assert len(wrong) <= 1, wrong


def test_training_shows_nothing_that_is_held_out_and_testing_little_else():
    rng = np.random.default_rng(0)
    for task in ALL_TASKS:
        for _ in range(150):
            train, test = (sample_prompt(task, rng, split).request for split in ("train", "test"))
            assert not is_held_out(train.spec, train.fact)
            assert is_held_out(test.spec, test.fact) == (task in HELD_OUT_TASKS)


def test_training_scenes_choose_no_held_out_colors():
    rng = np.random.default_rng(0)
    for _ in range(300):
        spec = sample_prompt("two_object", rng).spec
        assert not any(held_out_pair(s.color, s.kind) for s in sample_scene(spec, rng).shapes)


def test_every_kind_color_relation_and_number_is_trained():
    assert all(any(not held_out_pair(c, k) for c in COLORS) for k in KINDS)
    assert all(any(not held_out_pair(c, k) for k in KINDS) for c in COLORS)
    assert all(any(not held_out_relation(r, k) for k in KINDS) for r in RELATIONS)
    pairs = sum(held_out_pair(c, k) for c in COLORS for k in KINDS)
    relations = sum(held_out_relation(r, k) for r in RELATIONS for k in KINDS)
    facts = [fact for fact in FACTS if held_out_fact(fact)]
    assert (pairs, relations, len(facts)) == (14, 6, 4)
    known = Counter(f.color for f in FACTS if isinstance(f, ColorFact) and f not in facts)
    assert set(known) == set(COLORS)


def test_a_relation_is_held_out_from_both_ends():
    star, circle = Thing(kind="star"), Thing(kind="circle")
    assert held_out_relation("left of", "circle") and not held_out_relation("right of", "star")
    assert is_held_out(Spec(things=(star, circle), relations=((0, "right of", 1),)))
    assert not is_held_out(Spec(things=(star, circle), relations=((0, "left of", 1),)))


def test_sampled_prompts_are_different_and_repeat_with_the_seed():
    draws = [sample_prompts(10, np.random.default_rng(7), split="test") for _ in range(2)]
    assert draws[0] == draws[1]
    assert len({prompt.text for prompt in draws[0]}) == len(draws[0])
    counts = Counter(prompt.task for prompt in draws[0])
    # Only four numbers of a kind are held out.
    assert counts == {task: 4 if task == "counting" else 10 for task in TASKS}


def test_unknown_tasks_and_impossible_scenes_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="single_object"):
        sample_prompt("drawing", rng)
    star, ring = Thing(kind="star"), Thing(kind="ring")
    spec = Spec(things=(star, ring), relations=((0, "above", 1), (1, "above", 0)))
    with pytest.raises(ValueError, match="room"):
        sample_scene(spec, rng)


def test_right_pictures_are_right():
    for text in (
        "a photo of a star",
        "a photo of a star and a ring",
        "a photo of a red star and a blue ring",
        "a photo of a ring right of a star",
    ):
        assert judge(text, STAR, RING).correct


def test_faults_are_named():
    star, ring = Thing(kind="star"), Thing(kind="ring")
    assert judge("a photo of a star and a heart", STAR).faults == (
        Missing(thing=Thing(kind="heart")),
    )
    assert judge("a photo of a green star", STAR).faults == (
        WrongLook(thing=star, seen="red", wanted="green"),
    )
    assert judge("a photo of a red drop", STAR).faults == (
        WrongKind(seen=Thing(kind="star", color="red"), wanted=Thing(kind="drop", color="red")),
    )
    assert judge("a photo of a star right of a ring", STAR, RING).faults == (
        WrongPlace(thing=star, against=ring, wanted="right of", seen="left of"),
    )


def test_counts_must_be_exact():
    twins = (STAR, replace(STAR, y=40), replace(STAR, x=24, y=8))
    assert judge("a photo of three stars", *twins).exact
    assert judge("a photo of two stars", *twins).faults == (
        WrongNumber(thing=Thing(kind="star", number=2), seen=3),
    )
    assert judge("a photo of four stars", *twins).reasons == (
        "there are three stars but should be four",
    )
    assert judge("a photo of two hearts", *twins).faults[0] == Missing(
        thing=Thing(kind="heart", number=2)
    )


def test_surplus_leaves_a_picture_correct_but_not_exact():
    verdict = judge("a photo of a star", STAR, RING)
    assert verdict.correct and not verdict.exact
    assert verdict.surplus == (Extra(thing=Thing(kind="ring", color="blue")),)


def test_two_stars_of_different_colors_are_told_apart():
    other = Shape(kind="star", color="green", size="large", x=35, y=24)
    assert judge("a photo of a red star left of a green star", STAR, other).exact
    assert not judge("a photo of a green star left of a red star", STAR, other).correct
    assert judge("a photo of a star left of a star", STAR, other).exact


def test_fragments_do_not_play_two_things():
    assert not judge("a photo of a star and a red star", STAR).correct


def test_relations_follow_genevals_rule():
    assert relations_between((0, 0, 10, 10), (30, 0, 40, 10)) == ("left of",)
    assert relations_between((0, 0, 10, 10), (30, 30, 40, 40)) == ("left of", "above")
    assert relations_between((0, 0, 10, 10), (1, 1, 11, 11)) == ()
    assert relations_between((0, 0, 10, 10), (0, 0, 10, 10)) == ()


def test_preview_shows_every_task(tmp_path):
    out = tmp_path / "shapes.html"
    assert main(["preview", "--out", str(out), "--num-per-task", "2", "--split", "test"]) == 0
    page = out.read_text()
    assert all(f"<h2>{task}</h2>" in page for task in TASKS)
    assert page.count("data:image/png") == 2 * len(TASKS)
