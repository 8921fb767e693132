"""Ideas of the miniature world: how they are read, and when a picture shows one."""

import numpy as np
import pytest

from staged.shapes.language.phrases import GrammarError
from staged.shapes.language.prompts import read_prompt, write_prompt
from staged.shapes.language.wishes import Vision, Wish, read_vision, turned
from staged.shapes.sight.detect import detect
from staged.shapes.sight.wishes import fulfilled
from staged.shapes.tasks import sample_scene
from staged.shapes.world.render import render
from staged.shapes.world.spec import Spec, Thing

NEXT = ("left of", "right of")


@pytest.mark.parametrize(
    ("text", "vision"),
    [
        ("something red", Vision(wishes=(Wish(color="red"),))),
        ("A picture of  something.", Vision(wishes=(Wish(),))),
        (
            "something red next to a star",
            Vision(wishes=(Wish(color="red"), Wish(kind="star")), relations=((0, NEXT, 1),)),
        ),
        (
            "something red with a star next to it",
            Vision(wishes=(Wish(kind="star"), Wish(color="red")), relations=((0, NEXT, 1),)),
        ),
        ("two blue things", Vision(wishes=(Wish(color="blue"),) * 2)),
        ("three small hearts", Vision(wishes=(Wish(kind="heart", size="small"),) * 3)),
        (
            "a star with something green above it",
            Vision(wishes=(Wish(color="green"), Wish(kind="star")),
                   relations=((0, ("above",), 1),)),
        ),
        (
            "a heart the colour of a ripe banana and something large",
            Vision(wishes=(Wish(kind="heart", color="yellow"), Wish(size="large"))),
        ),
        (
            "a red star above a ring, and a blue shape",
            Vision(
                wishes=(Wish(kind="star", color="red"), Wish(kind="ring"), Wish(color="blue")),
                relations=((0, ("above",), 1),),
            ),
        ),
        (  # what only a prompt says: a number that a fact stands for, one thing in two relations
            "A photo of as many stars as a tricycle has wheels.",
            Vision(wishes=(Wish(kind="star"),) * 3),
        ),
        (
            "a photo of a star left of a ring, and a heart above the star",
            Vision(
                wishes=(Wish(kind="star"), Wish(kind="ring"), Wish(kind="heart")),
                relations=((0, ("left of",), 1), (2, ("above",), 0)),
            ),
        ),
    ],
)  # fmt: skip
def test_an_idea_is_read(text: str, vision: Vision) -> None:
    assert read_vision(text) == vision


SHOWN = Spec(
    things=(Thing(kind="star", color="red"), Thing(kind="ring", color="blue")),
    relations=((0, "above", 1),),
)
STAR = Spec(things=(Thing(kind="star", color="red"),))


def test_an_idea_can_speak_of_images() -> None:
    like = read_vision("like <IMG>", [SHOWN])
    assert like == read_vision("a red star above a blue ring")
    assert read_vision("like <IMG> but all green", [SHOWN]) == read_vision(
        "a green star above a green ring"
    )
    assert read_vision("like <IMG> with a red heart", [SHOWN]) == read_vision(
        "a red star above a blue ring, and a red heart"
    )
    assert read_vision("two things the colour of <IMG>", [STAR]) == read_vision("two red things")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a dragon", []),
        ("something shiny", []),
        ("a red thing the colour of snow", []),
        ("something the colour of envy", []),
        ("two stars above a ring", []),
        ("five things", []),
        ("like <IMG>", []),
        ("a star", [STAR]),
        ("a ring the colour of <IMG>", [SHOWN]),
        ("like <IMG> but all shiny", [STAR]),
        ("", []),
    ],
)
def test_what_this_world_does_not_have_is_no_idea(text: str, seen: list[Spec]) -> None:
    with pytest.raises(GrammarError):
        read_vision(text, seen)


def test_every_candidate_can_be_said_to_the_image_model() -> None:
    vision = read_vision("something red next to a star")
    specs = list(vision.candidates())
    assert len(specs) == 22  # no star beside a star
    for spec in specs:
        assert read_prompt(write_prompt(spec)).spec == spec
        assert read_prompt(write_prompt(turned(spec))).spec == turned(spec).normal()
    assert Spec(things=(Thing(kind="star", color="blue", number=2),)) in list(
        read_vision("two blue things").candidates()
    )


@pytest.mark.parametrize(
    "text",
    [
        "something red next to a star",
        "two blue things",
        "a small ring above something white",
        "something green",
    ],
)
def test_a_picture_of_any_candidate_shows_the_idea(text: str) -> None:
    rng = np.random.default_rng(0)
    vision = read_vision(text)
    specs = list(vision.candidates())
    for index in rng.choice(len(specs), 6, replace=False):
        seen = detect(render(sample_scene(specs[index], rng)))
        check = fulfilled(vision, seen)
        assert check.correct, (specs[index], check.reasons)


@pytest.mark.parametrize(
    ("text", "shown", "reason"),
    [
        ("something red", "a photo of a blue star", ""),
        ("something red next to a star", "a photo of a red star", "missing"),
        ("something red and a star", "a photo of a red star", "missing"),
        ("something red and a star", "a photo of two red stars", "should be a red thing"),
        ("something red next to a star", "a photo of a red ring above a blue star", "left of"),
        ("two blue things", "a photo of a blue star", "should be two"),
        ("a star", "a photo of a ring", "missing"),
    ],
)
def test_a_picture_of_something_else_does_not(text: str, shown: str, reason: str) -> None:
    rng = np.random.default_rng(1)
    seen = detect(render(sample_scene(read_prompt(shown).spec, rng)))
    check = fulfilled(read_vision(text), seen)
    assert not check.correct
    assert reason in " ".join(check.reasons)


def test_an_empty_picture_shows_nothing() -> None:
    check = fulfilled(read_vision("something red"), [])
    assert not check.correct
