"""The loop of Idea2Img over the miniature world's language model and an image model with habits."""

import asyncio
from pathlib import Path

import pytest
from exploring import Habits, explored

from staged.ideas.exploration import Exploration, Place
from staged.ideas.idea import Idea
from staged.jobs.records import Records
from staged.loops.idea2img.events import (
    Checked,
    Chosen,
    Compared,
    DraftDrawn,
    Explored,
    FeedbackGiven,
    IdeaEvent,
    PromptsWritten,
    StepRetried,
)
from staged.loops.idea2img.policy import PRESETS, IdeaPolicy
from staged.shapes.language.wishes import read_vision
from staged.shapes.players.exploring import read_prompt
from staged.shapes.sight.detect import detect
from staged.shapes.sight.wishes import fulfilled

IDEA = "something red next to a hexagon"


def run(folder: Path, idea: str | Idea = IDEA, **options) -> tuple[Exploration, list[IdeaEvent]]:
    events: list[IdeaEvent] = []
    found = asyncio.run(explored(idea, folder, tell=events.append, **options))
    return found, events


def shows(exploration: Exploration, idea: str) -> bool:
    assert exploration.refined is not None and exploration.refined.image is not None
    pixels = exploration.refined.image.array()
    return fulfilled(read_vision(idea), detect(pixels)).correct


def test_the_published_preset_goes_three_rounds_of_three_prompts(tmp_path: Path) -> None:
    model = Habits()
    found, events = run(tmp_path, model=model)
    assert found.complete and found.num_drafts == 9 and len(found.rounds) == 3
    assert [one.feedback is None for one in found.rounds] == [False, False, True]
    assert all(draft.score for _, draft in found.drafts())
    assert len(found.final) == 3 and found.best is not None
    best = max(found.final, key=lambda scored: scored.score)
    assert found.best == best.place
    assert found.provenance["ended_by"] == "policy"
    assert found.provenance["cost"] == {"images": 9, "flow_steps": 180}
    kinds = [type(event) for event in events]
    assert kinds.count(PromptsWritten) == 3 and kinds.count(DraftDrawn) == 9
    assert kinds.count(Chosen) == 4 and kinds.count(FeedbackGiven) == 2
    assert kinds[-1] is Explored
    # And one picture of what a person would ask for.
    assert model.drawn[-1][0] == IDEA and found.manual is not None


def test_prompts_of_a_round_differ_and_say_what_the_idea_leaves_open(tmp_path: Path) -> None:
    found, _ = run(tmp_path)
    for one in found.rounds:
        prompts = [draft.prompt for draft in one.drafts]
        assert len(set(prompts)) == 3
        for prompt in prompts:
            spec = read_prompt(prompt).spec
            assert any(thing.kind == "hexagon" for thing in spec.things)
            assert len(spec.relations) == 1


def test_what_the_image_model_cannot_draw_gives_way(tmp_path: Path) -> None:
    """Where the kind is open, a later round asks for another one, and that comes out right."""
    idea = "something red above something blue"
    model = Habits(unknown=("circle", "square", "triangle", "star", "cross", "ring", "heart"))
    found, _ = run(tmp_path, idea, model=model)
    assert found.first is not None and found.first.score < found.refined.score == 10
    assert shows(found, idea)


def test_best_stops_when_all_questions_hold(tmp_path: Path) -> None:
    idea = "a red star above a blue ring"
    found, events = run(tmp_path, idea, policy=PRESETS["best"])
    assert found.provenance["ended_by"] == "inspector"
    assert len(found.rounds) == 1 and found.num_drafts == 3 and shows(found, idea)
    assert found.holding == (6, 6)
    assert found.rounds[0].feedback is None
    assert any(isinstance(event, Checked) for event in events)
    assert all(draft.score is None for _, draft in found.drafts())


def test_best_keeps_the_best_so_far_and_stays_within_its_pictures(tmp_path: Path) -> None:
    found, events = run(tmp_path, policy=PRESETS["best"])  # it draws no hexagons
    assert found.num_drafts == 12 and found.provenance["ended_by"] == "policy"
    compared = [event.comparison for event in events if isinstance(event, Compared)]
    assert compared and not any(one.replaced for one in compared[-1:])
    chosen = [event.place for event in events if isinstance(event, Chosen)]
    assert chosen[-1] == found.best
    faults = [
        (fulfilled(read_vision(IDEA), detect(found.at(place).image.array())).faults[0])
        for place in chosen
    ]
    assert faults == sorted(faults, reverse=True)


def test_a_small_fault_is_edited_where_the_image_model_edits(tmp_path: Path) -> None:
    model = Habits(edits=True)
    found, _ = run(tmp_path, "something red and a hexagon", policy=PRESETS["best"], model=model)
    assert [one.action for one in found.rounds] == ["regenerate", "edit"]
    edited = found.rounds[1].drafts[0]
    assert edited.onto == Place(0, found.rounds[0].choice)
    assert "hexagon" in edited.prompt
    assert shows(found, "something red and a hexagon")
    without, _ = run(tmp_path / "b", "something red and a hexagon", policy=PRESETS["best"])
    assert {one.action for one in without.rounds} == {"regenerate"}


def test_a_control_has_as_many_pictures_as_were_explored(tmp_path: Path) -> None:
    found, _ = run(tmp_path, policy=IdeaPolicy(max_rounds=2, control="matched"))
    assert found.control is not None and len(found.control.drafts) == 6
    assert {draft.prompt for draft in found.control.drafts} == {IDEA}
    assert len({draft.seed for draft in found.control.drafts}) == 6
    assert found.control.drafts[0].seed == found.rounds[0].drafts[0].seed
    none, _ = run(tmp_path / "b", policy=IdeaPolicy(max_rounds=1, control="none"))
    assert none.control is None and none.manual is None


def test_the_same_seed_gives_the_same_exploration(tmp_path: Path) -> None:
    first, _ = run(tmp_path / "a", seed=5)
    again, _ = run(tmp_path / "b", seed=5)
    other, _ = run(tmp_path / "c", seed=6)
    assert first == again
    assert first.rounds[0].drafts[0].seed != other.rounds[0].drafts[0].seed


def test_nothing_is_drawn_or_asked_twice_in_a_folder(tmp_path: Path) -> None:
    model = Habits()
    first, _ = run(tmp_path, model=model)
    asked = Records(tmp_path / "ledger").spent
    before = list(model.drawn)
    again, _ = run(tmp_path, model=model)
    assert again == first and model.drawn == before
    assert Records(tmp_path / "ledger").spent == asked
    assert len(set(before)) == len(before) == 10


def test_a_picture_that_is_withheld_is_left_out_and_told(tmp_path: Path) -> None:
    model = Habits(refuses=lambda prompt: "small" in prompt)
    found, events = run(tmp_path, "a red star left of a blue ring", model=model)
    failed = [draft for _, draft in found.drafts() if draft.failure]
    assert failed and {draft.failure for draft in failed} == {"content_filter"}
    assert found.complete and found.refined is not None
    assert any(isinstance(e, DraftDrawn) and e.draft.failure for e in events)


def test_an_exploration_without_any_picture_ends_typed(tmp_path: Path) -> None:
    found, events = run(tmp_path, model=Habits(refuses=lambda prompt: True))
    assert not found.complete and found.best is None
    assert found.provenance["failure"] == "content_filter"
    assert isinstance(events[-1], Explored) and len(found.rounds) == 1


@pytest.mark.parametrize(
    ("misdeed", "reason"),
    [
        ("refusal", "refusal"),
        ("content_filter", "content_filter"),
        ("truncated", "truncated"),
        ("wrong_json", "invalid_output"),
        ("wrong_schema", "invalid_output"),
        ("rate_limit", "rate_limit"),
        ("server_error", "server_error"),
    ],
)
def test_a_language_model_that_always_fails_ends_typed(
    tmp_path: Path, misdeed: str, reason: str
) -> None:
    found, events = run(tmp_path, **{misdeed: 1.0})
    assert found.provenance["failure"] == reason
    assert found.provenance["failure_detail"].startswith(f"{reason}: prompts: ")
    assert found.provenance["ended_by"] == "failure" and found.rounds == ()
    assert found.provenance["retries"] == {reason: 1}
    assert [e.reason for e in events if isinstance(e, StepRetried)] == [reason]


def test_a_choice_against_its_own_scores_is_no_choice(tmp_path: Path) -> None:
    """The worst draft is named as the best; where all are alike any choice is one."""
    model = Habits(unknown=("hexagon", "ring", "drop", "heart", "star"))
    found, _ = run(tmp_path, "something red", model=model, contradiction=1.0)
    assert found.provenance["failure"] == "invalid_output"
    assert "selection: " in found.provenance["failure_detail"]
    assert "has score" in found.provenance["failure_detail"]


def test_judgements_turned_round_lose_nothing(tmp_path: Path) -> None:
    """In pairs, the other order tells: who prefers the worse picture prefers it consistently, so
    the run goes to its end; a checklist answered the wrong way round stops nothing too early."""
    found, _ = run(tmp_path, "a red star above a blue ring", policy=PRESETS["best"],
                   contradiction=1.0)  # fmt: skip
    assert found.complete and found.num_drafts == 12


def test_a_language_model_that_fails_now_and_then_is_asked_again(tmp_path: Path) -> None:
    found, _ = run(tmp_path, wrong_json=0.2, rate_limit=0.2, server_error=0.1, seed=1)
    assert found.complete
    calm, _ = run(tmp_path / "calm", seed=1)
    assert found.rounds == calm.rounds and found.best == calm.best


def test_what_was_there_before_a_failure_is_kept(tmp_path: Path) -> None:
    """Most refusals are final, so some step fails; the best scored picture so far stands."""
    ends = [run(tmp_path / str(seed), refusal=0.45, seed=seed)[0] for seed in range(8)]
    late = [one for one in ends if one.rounds and one.provenance.get("failure") == "refusal"]
    assert late, "none of them failed after its first round"
    for one in late:
        scores = [r.winner.score for r in one.rounds if r.winner]
        if scores:
            assert one.refined is not None and one.refined.score == max(scores)
            assert not one.complete


def test_feedback_that_was_raised_before_is_asked_again_and_marked(tmp_path: Path) -> None:
    """The hexagon never comes, and there is nothing else to say about the picture."""
    found, events = run(tmp_path, "a hexagon", policy=IdeaPolicy(max_rounds=3, num_prompts=2))
    first, second = (one.feedback for one in found.rounds[:2])
    assert first is not None and second is not None
    if second.problem == first.problem:
        assert second.repeated and not first.repeated
        assert "repetition" in [e.reason for e in events if isinstance(e, StepRetried)]


def test_an_idea_of_another_world_is_a_bad_request(tmp_path: Path) -> None:
    found, _ = run(tmp_path, "a dragon in the mist")
    assert found.provenance["failure"] == "bad_request"
    assert "dragon" in found.provenance["failure_detail"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"selection": "votes"}, "selection is 'votes'; give one of scores, pairs"),
        ({"checklist": True}, "set selection to pairs"),
        ({"edit": True}, "set selection to pairs"),
        ({"max_images": 2}, "nothing could be drawn"),
        ({"num_prompts": 0}, "num_prompts is 0"),
        ({"max_rounds": 99}, "max_rounds is 99"),
        ({"control": "two"}, "control is 'two'"),
    ],
)
def test_a_policy_out_of_range_is_refused(fields, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        IdeaPolicy(**fields)


def test_drawing_onto_an_idea_needs_somebody_who_does(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="onto_idea"):
        run(tmp_path, policy=IdeaPolicy(onto_idea=True))
