"""Edits to practise on: what is said is what happens, and nothing else does."""

from collections import Counter

import numpy as np
import pytest

from staged.shapes.drills import KEEP, VERBS, Drill, draw_drill
from staged.shapes.language.instructions import Add, read_edits
from staged.shapes.language.phrases import GrammarError
from staged.shapes.players.arrange import Arranger
from staged.shapes.tasks import sample_prompt, sample_scene
from staged.shapes.world.scene import Scene
from staged.shapes.world.splits import held_out_pair

ALL = dict.fromkeys(VERBS, 1.0)


def drills(number: int, verbs: dict[str, float] = ALL) -> list[Drill]:
    found = []
    for seed in range(number):
        rng = np.random.default_rng(seed)
        task = ("composition", "counting", "two_object", "colors")[seed % 4]
        scene = sample_scene(sample_prompt(task, rng, "train").spec, rng, "train")
        drill = draw_drill(scene, rng, verbs)
        if drill is not None:
            found.append(drill)
    return found


def test_every_verb_comes_up_and_few_draws_find_nothing() -> None:
    made = drills(400)
    assert len(made) > 380
    assert set(Counter(drill.verb for drill in made)) == set(VERBS)


def test_what_is_said_can_be_read_and_done_to_the_scene_before() -> None:
    for drill in drills(200):
        if drill.instruction == KEEP:
            assert drill.after == drill.before
            continue
        try:
            edits = read_edits(drill.instruction)
        except GrammarError:
            edits = read_edits(drill.instruction, voice="refinement")
        scene = drill.before
        for edit in edits:
            scene = Arranger(rng=np.random.default_rng(0)).apply(scene, edit)
        if all(not isinstance(edit, Add) or edit.thing.color for edit in edits):
            assert looks(scene) == looks(drill.after), drill.instruction
        # Without a colour that is said, a new thing may have any.
        assert kinds(scene) == kinds(drill.after), drill.instruction


def test_what_is_not_named_stays_where_it_is() -> None:
    for drill in drills(300):
        gone = set(drill.before.shapes) - set(drill.after.shapes)
        named = [shape for shape in gone if shape.kind in drill.instruction]
        assert len(named) == len(gone), drill.instruction


def test_nothing_held_out_is_drawn_or_said() -> None:
    for drill in drills(300):
        for shape in (*drill.before.shapes, *drill.after.shapes):
            assert not held_out_pair(shape.color, shape.kind)


def test_verbs_without_weight_never_come_up() -> None:
    assert {drill.verb for drill in drills(60, {"remove": 1.0})} == {"remove"}


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "keep"])
def test_a_picture_of_nothing_gives_no_drill(verb: str) -> None:
    assert draw_drill(Scene(shapes=()), np.random.default_rng(0), {verb: 1.0}) is None


def looks(scene: Scene) -> Counter[tuple[str, str]]:
    return Counter((shape.kind, shape.color) for shape in scene.shapes)


def kinds(scene: Scene) -> Counter[str]:
    return Counter(shape.kind for shape in scene.shapes)
