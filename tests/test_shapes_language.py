import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from staged.scene_graph import Vocabulary, delta, varied_path
from staged.scene_graph.graph import SceneGraph
from staged.shapes.language import sentences
from staged.shapes.language.corpus import corpus
from staged.shapes.language.critiques import (
    PlanCritique,
    read_plan_critique,
    read_sketch_critique,
    write_plan_critique,
    write_sketch_critique,
)
from staged.shapes.language.faults import (
    Contradiction,
    Misplaced,
    Missing,
    WrongKind,
    correct,
    plan_faults,
)
from staged.shapes.language.instructions import Add, Change, Ref, read_edits, write_edits
from staged.shapes.language.phrases import GrammarError
from staged.shapes.language.prompts import (
    PromptMeaning,
    describe,
    read_description,
    read_prompt,
    write_prompt,
)
from staged.shapes.language.steps import describe_graph, edits_of
from staged.shapes.players.answers import drawing_path, step_texts
from staged.shapes.players.editor import ShapesEditor
from staged.shapes.sight.detect import detect
from staged.shapes.sight.verdict import satisfied
from staged.shapes.world.facts import FACTS, ColorFact
from staged.shapes.world.scene import COLORS, KINDS
from staged.shapes.world.spec import Spec, Thing

seeds = st.integers(0, 2**32)


def rng_of(seed):
    return np.random.default_rng(seed)


EDITOR = ShapesEditor()


@pytest.mark.parametrize(
    "text",
    [
        "a photo of a star",
        "a photo of an arrow and a ring",
        "a photo of three hearts",
        "a photo of four crosses",
        "a photo of an orange drop",
        "a photo of a star left of a ring",
        "a photo of a red star and a blue ring",
        "a photo of a red circle above a blue star",
        "a photo of a red star left of a blue ring, and a green heart below the red star",
        "a photo of a circle the colour of a ripe banana",
        "a photo of as many stars as a tricycle has wheels",
    ],
)
def test_the_documented_prompts_read_and_write(text):
    assert write_prompt(read_prompt(text)) == text


def test_prompts_mean_what_they_say():
    spec = read_prompt("a photo of a star left of a blue ring, and two hearts").spec
    assert spec == Spec(
        things=(
            Thing(kind="star"),
            Thing(kind="ring", color="blue"),
            Thing(kind="heart", number=2),
        ),
        relations=((0, "left of", 1),),
    )
    assert read_prompt("a photo of a circle the colour of snow").spec.things[0].color == "white"


@settings(max_examples=200)
@given(seeds)
def test_descriptions_round_trip(seed):
    spec = sentences.sample_any_spec(rng_of(seed))
    assert read_description(describe(spec)) == spec
    assert read_prompt(write_prompt(spec)) == PromptMeaning(spec=spec)


@settings(max_examples=200)
@given(seeds, st.sampled_from(["plan", "refinement"]), st.integers(1, 3))
def test_instructions_round_trip(seed, voice, number):
    rng = rng_of(seed)
    edits = tuple(sentences.sample_edit(rng) for _ in range(number))
    assert read_edits(write_edits(edits, voice), voice) == edits


@settings(max_examples=200)
@given(seeds, st.integers(0, 3))
def test_critiques_round_trip(seed, number):
    rng = rng_of(seed)
    faults = tuple(sentences.sample_fault(rng) for _ in range(number))
    assert read_sketch_critique(write_sketch_critique(faults)) == faults
    critique = sentences.sample_plan_critique(rng)
    assert read_plan_critique(write_plan_critique(critique)) == critique


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.subject)
def test_every_fact_can_be_asked_for(fact):
    thing = (
        Thing(kind="arrow", color=fact.color)
        if isinstance(fact, ColorFact)
        else Thing(kind="arrow", number=fact.number)
    )
    request = PromptMeaning(spec=Spec(things=(thing,)), fact=fact)
    assert read_prompt(write_prompt(request)) == request


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a star",
        "a photo of",
        "a photo of a Star",
        "a photo of a  star",
        "a photo of an star",
        "a photo of a arrow",
        "a photo of a star ",
        "a photo of a stars",
        "a photo of three heart",
        "a photo of a red large star",
        "a photo of the star",
        "a photo of a star left of the ring",
        "a photo of a star and",
        "a photo of a star, and a ring",
        "a photo of a star left of a ring and a heart",
        "a photo of two stars left of a ring",
        "a photo of a circle the colour of the wind",
        "a photo of as many stars as a tricycle has wings",
        "a photo of a red circle the colour of snow",
    ],
)
def test_anything_but_the_grammar_is_refused(text):
    with pytest.raises(GrammarError):
        read_prompt(text)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_edits, "add red circle"),
        (read_edits, "add a red circle and"),
        (read_edits, "make the circle red"),
        (read_edits, "change a circle to red"),
        (read_edits, "move the star to the above the ring"),
        (read_edits, "paint the star"),
        (read_sketch_critique, "the image fits the plan; the heart is missing"),
        (read_sketch_critique, "the hearts is missing"),
        (read_sketch_critique, "the star is not left of the ring but should be above it"),
        (read_sketch_critique, "the star is left of the ring"),
        (read_plan_critique, "the plan fits the prompt; "),
        (read_plan_critique, "the plan fits the prompt; the star are still to come"),
        (read_plan_critique, "the plan says a star"),
    ],
)
def test_other_texts_are_refused_too(read, text):
    with pytest.raises(GrammarError):
        read(text)


def test_the_two_voices_are_kept_apart():
    edit = Change(target=Ref(thing=Thing(kind="circle", color="red")), value="green")
    assert write_edits([edit]) == "change the red circle to green"
    assert write_edits([edit], "refinement") == "make the red circle green"


def test_a_reference_that_could_be_several_things_is_not_written():
    star = Thing(kind="star")
    spec = Spec(
        things=(star, star, Thing(kind="ring")), relations=((0, "above", 1), (1, "above", 2))
    )
    with pytest.raises(ValueError, match="several"):
        describe(spec)


@settings(max_examples=60)
@given(seeds)
def test_specifications_survive_scene_graphs(seed):
    spec = sentences.sample_any_spec(rng_of(seed))
    graph = SceneGraph.from_json(spec.to_graph().to_json())
    back = Spec.from_graph(graph)
    assert sorted(map(repr, back.things)) == sorted(map(repr, spec.things))
    said = {(spec.things[a], r, spec.things[b]) for a, r, b in spec.relations}
    assert {(back.things[a], r, back.things[b]) for a, r, b in back.relations} == said


@settings(max_examples=60)
@given(seeds)
def test_every_step_of_a_varied_path_can_be_said_and_read(seed):
    spec = sentences.sample_any_spec(rng_of(seed))
    words = Vocabulary(classes=KINDS, attributes={"color": COLORS})
    path = varied_path(spec.to_graph(), seed=seed, max_steps=5, vocabulary=words, num_variations=2)
    before = SceneGraph()
    for graph in path:
        edits = edits_of(delta(before, graph))
        if edits:
            assert read_edits(write_edits(edits)) == edits
        assert read_description(describe_graph(graph)).num_shapes == len(graph.objects)
        before = graph


def test_alike_things_added_together_are_one_edit():
    hearts = Spec(things=(Thing(kind="heart", number=3),)).to_graph()
    assert edits_of(delta(SceneGraph(), hearts)) == (Add(thing=Thing(kind="heart", number=3)),)


def test_plans_are_compared_with_prompts():
    red, green = (Thing(kind="circle", color=c) for c in ("red", "green"))
    star, ring = Thing(kind="star", color="blue"), Thing(kind="ring")
    asked = Spec(things=(red, star), relations=((0, "left of", 1),))
    assert plan_faults(Spec(things=(red,)), asked) == ((), (star,))
    assert plan_faults(asked, asked) == ((), ())
    assert plan_faults(Spec(things=(green,)), asked) == (
        (Contradiction(said=green, asked=red),),
        (star,),
    )
    assert plan_faults(Spec(things=(red, ring)), asked)[0] == (
        Contradiction(said=ring, asked=None),
    )
    turned = Spec(things=(star, red), relations=((0, "left of", 1),))
    assert plan_faults(turned, asked)[0] == (
        Misplaced(thing=star, against=red, said="left of", asked="right of"),
    )


def test_a_plan_may_choose_what_the_prompt_leaves_open():
    asked = Spec(things=(Thing(kind="heart", number=3),))
    said = Spec(things=(Thing(kind="heart", color="red", number=2),))
    assert plan_faults(said, asked) == ((), (Thing(kind="heart"),))
    many = Spec(things=(Thing(kind="heart", number=4),))
    assert plan_faults(many, asked)[0] == (
        Contradiction(said=many.things[0], asked=asked.things[0]),
    )


def test_pending_things_are_no_faults_in_words():
    critique = PlanCritique(pending=(Thing(kind="star", color="blue"),))
    text = "the plan fits the prompt; the blue star is still to come"
    assert write_plan_critique(critique) == text


@settings(max_examples=100)
@given(seeds)
def test_every_fault_has_a_correction_in_words(seed):
    fault = sentences.sample_fault(rng_of(seed))
    if fault.__class__.__name__ == "WrongNumber" and fault.seen == fault.thing.number:
        return
    text = write_edits([correct(fault)], "refinement")
    assert read_edits(text, "refinement") == (correct(fault),)


def test_corrections_do_what_the_fault_asks():
    star, ring = Thing(kind="star"), Thing(kind="ring")
    texts = [
        write_edits([correct(f)]) for f in (Missing(thing=star), WrongKind(seen=star, wanted=ring))
    ]
    assert texts == ["add a star", "replace the star with a ring"]


def test_descriptions_stay_short_and_the_vocabulary_small():
    lines = list(corpus(seed=0, num_random=200))
    assert lines == list(corpus(seed=0, num_random=200))
    words = {word for line in lines for word in re.findall(r"\w+", line)}
    assert len(words) <= 250 and not any(word != word.lower() for word in words)
    assert {*KINDS, *COLORS} <= words


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (
            "a photo of a drop below a square",
            ["add a square at the top", "add a drop below the square"],
        ),
        (
            "a photo of a star left of a ring",
            ["add a ring at the right", "add a star left of the ring"],
        ),
        (
            "a photo of a red star above a blue ring, and a green heart right of the blue ring",
            ["add a blue ring at the bottom left"],
        ),
        ("a photo of a red star and a blue ring", ["add a red star", "add a blue ring"]),
        ("a photo of two hearts", ["add a heart"]),
    ],
)
def test_what_others_stand_against_is_put_where_they_find_room(
    prompt: str, said: list[str]
) -> None:
    path = drawing_path(prompt)
    told = [
        step_texts(before, after, path[number:])[0]
        for number, (before, after) in enumerate(pairwise((SceneGraph(), *path)), start=1)
    ]
    assert set(said) <= set(told), told
    # The editor can do it, and what is drawn is what was asked for.
    picture = None
    for number, text in enumerate(told):
        picture = EDITOR.edit(picture, text, width=48, height=48, seed=number)
    assert picture is not None and satisfied(read_prompt(prompt).spec, detect(picture)).exact
