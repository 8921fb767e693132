"""Idea2Img on the miniature world's ideas: the suite, the lines, and one command for all of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval.idea2img.compare import as_many_at_once, suite_ideas, vague_ideas
from eval.idea2img.lines import LINES, counts, pictures, results_of, score
from eval.idea2img.page import PAIRS, build
from eval.miniature.settings import MiniatureSettings, samples
from eval.report.pairs import differences
from eval.results import BenchmarkResult
from staged.cli import main
from staged.command_line import exit_codes
from staged.ideas.exploration import Draft, DraftRound, Exploration, Place
from staged.ideas.idea import Idea
from staged.loops.idea2img.policy import PRESETS
from staged.shapes.language.prompts import read_prompt
from staged.shapes.language.vague import IDEA_KINDS, RIDDLE_KINDS, sample_ideas
from staged.shapes.language.wishes import read_vision
from staged.shapes.players.exploring import EXPLORING
from staged.shapes.tasks import TASKS, sample_scene
from staged.shapes.world.render import render
from staged.trajectory import ImageRef


def drawn(prompt: str, shown: str, seed: int = 0) -> Draft:
    """A draft that shows what another prompt asks for."""
    scene = sample_scene(read_prompt(shown).spec, np.random.default_rng(seed))
    return Draft(prompt=prompt, seed=seed, image=ImageRef.from_array(render(scene)), score=5)


def explored(idea: str, *, manual: str, first: str, best: str) -> Exploration:
    control = tuple(drawn(idea, manual, seed) for seed in range(4))
    return Exploration(
        idea=Idea(parts=(idea,)),
        seed=0,
        rounds=(
            DraftRound(drafts=(drawn("a", "a photo of a ring"), drawn("b", first)), choice=1),
            DraftRound(drafts=(drawn("c", best), drawn("d", best)), choice=0),
        ),
        best=Place(1, 0),
        control=DraftRound(drafts=control, choice=2),
    )


IDEA = "something red next to a star"
RIGHT, WRONG = "a photo of a red ring left of a blue star", "a photo of a star"


@pytest.mark.parametrize("kind", IDEA_KINDS)
def test_ideas_of_a_kind_differ_and_leave_room_for_as_many_prompts(kind) -> None:
    ideas = sample_ideas(kind, 12, np.random.default_rng(0))
    assert len(set(ideas)) == 12
    for idea in ideas:
        assert len(list(read_vision(idea).candidates())) >= 9, idea


@pytest.mark.parametrize("kind", RIDDLE_KINDS)
def test_riddles_are_ideas_and_no_prompts_of_things_without_relations(kind) -> None:
    ideas = sample_ideas(kind, 60, np.random.default_rng(0))
    assert len(set(ideas)) == 60
    assert any(" the colour of " in idea for idea in ideas)
    for idea in ideas:
        vision = read_vision(idea)
        assert not vision.relations and all(wish.color for wish in vision.wishes), idea


def test_the_suite_grows_without_changing() -> None:
    small, large = vague_ideas(2, 0), vague_ideas(3, 0)
    assert len(small) == 12 and len(large) == 18
    assert set(map(str, small)) < set(map(str, large))
    assert {idea.text for idea in vague_ideas(2, 1)} != {idea.text for idea in small}


def test_the_suites_prompts_are_those_of_the_miniature_suite() -> None:
    asked = suite_ideas(6, 0)
    wanted = {one.prompt.text: one.seed for one in samples(
        MiniatureSettings(checkpoint="", num_per_task=6, tasks=TASKS)
    )}  # fmt: skip
    assert {idea.text for idea in asked} == wanted.keys()
    assert all(wanted[idea.text] == idea.seed for idea in asked), "it has other noise"
    assert {idea.kind for idea in asked} == set(TASKS)
    for idea in asked:
        answer = EXPLORING["idea_prompts"]({"idea": [idea.text], "number": 3}, ())
        assert len(set(answer["prompts"])) == 3


def test_as_many_at_once_draw_as_many() -> None:
    assert as_many_at_once(PRESETS["paper"]).num_prompts == 9
    best = as_many_at_once(PRESETS["best"])
    assert (best.num_prompts, best.selection, best.checklist) == (12, "pairs", False)


def test_every_line_has_its_picture_and_its_count() -> None:
    one = explored(IDEA, manual=WRONG, first=WRONG, best=RIGHT)
    other = replace(one, rounds=one.rounds[:1], best=Place(0, 1), control=None)
    found = pictures(one, other)
    prompts = {line: draft.prompt for line, draft in found.items() if draft}
    assert prompts == {"manual": IDEA, "manual_best": IDEA, "first_prompt": "a", "first": "b",
                       "at_once": "b", "refined": "c"}  # fmt: skip
    assert counts(one, other) == {"manual": 1, "manual_best": 4, "first_prompt": 1, "first": 2,
                                  "at_once": 2, "refined": 4}  # fmt: skip
    assert score(one, found["refined"]) == 1.0 and score(one, found["manual"]) == 0.0
    assert pictures(one, None)["at_once"] is None


def test_lines_are_scored_idea_by_idea_and_paired() -> None:
    ideas = ["something red next to a star", "something red next to a heart"]
    ones = [
        explored(ideas[0], manual=WRONG, first=RIGHT, best=RIGHT),
        explored(ideas[1], manual=WRONG, first=WRONG, best="a photo of a red ring left of a heart"),
    ]
    results = results_of(["beside"] * 2, ones, [None, None], variant={"ideas": "two"})
    values = {line: result.overall.value for line, result in results.items()}
    assert values == {"manual": 0.0, "manual_best": 0.0, "first_prompt": 0.0, "first": 0.5,
                      "refined": 1.0}  # fmt: skip
    gains = differences(results, PAIRS)
    assert gains["refined", "manual"].value == 1.0 and gains["refined", "first"].value == 0.5
    assert ("refined", "at_once") not in gains, "nothing was drawn at once"
    broken = replace(ones[0], control=None)
    with_one = results_of(["beside"] * 2, [broken, ones[1]], [ones[0], None], variant={})
    assert with_one["at_once"].overall.unscored == 1, "unscored is not zero"
    assert with_one["manual"].overall.unscored == 1
    spent = dict.fromkeys(LINES, 2.0)
    page = build(results, spent, ones, [None, None], ["by hand"]).html()
    assert "Of 100 ideas, exploring prompts shows 100, the first round 50" in page
    assert "cannot be told from" in page and "Pictures" in page


def test_one_command_draws_scores_and_shows_all_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a miniature of random weights, which draws no shapes: all of it is wrong, and said."""
    monkeypatch.setattr("eval.idea2img.compare.IDEA_KINDS", ("several",))
    out = tmp_path / "out"
    words = ["eval", "idea2img", "--num-per-kind", "1", "--out", str(out), "policy.num_prompts=2",
             "policy.max_rounds=2", "model.checkpoint=miniature:fresh", "model.num_flow_steps=1",
             "model.device=cpu", "model.dtype=float32"]  # fmt: skip
    assert main([*words, "--json"]) == exit_codes.OK
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() == LINES.keys()
    assert figures["refined"]["overall"]["n"] == 1
    for line in LINES:
        assert BenchmarkResult.read(out / f"{line}.json").overall.value == 0.0
    assert (out / "report.html").is_file()
    before = (out / "refined.json").read_bytes()
    assert main(words) == exit_codes.OK
    assert (out / "refined.json").read_bytes() == before
    compared = ["eval", "compare", str(out / "refined.json"), str(out / "manual.json")]
    assert main(compared) == exit_codes.OK


def test_another_worlds_players_are_sent_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "idea2img", "--out", str(tmp_path / "out"), "endpoint.model=gpt-image-1"]
    assert main([*words, "lmm.model=gpt-4o"]) == exit_codes.USAGE
    assert "idea2img-study" in capsys.readouterr().err
