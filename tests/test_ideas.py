"""Ideas, what exploring one came to, and their folder."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from staged import images
from staged.ideas.exploration import (
    Draft,
    DraftRound,
    DraftScore,
    Exploration,
    Feedback,
    PairComparison,
    Place,
)
from staged.ideas.folder import EXPLORATION, from_json, load_exploration, save_exploration
from staged.ideas.idea import MARK, Idea, read_idea, read_ideas
from staged.scene_graph import Question
from staged.trajectory import ImageRef, Inspection, Plan, Refinement, Sketch, Stop
from staged.trajectory_folder import load_trajectory


def picture(shade: int) -> ImageRef:
    return ImageRef.from_array(np.full((8, 8, 3), shade, np.uint8))


def explored() -> Exploration:
    drafts = tuple(
        Draft(prompt=f"a dog, {i}", seed=i, image=picture(i), score=i + 1, cost={"flow_steps": 20})
        for i in range(5)
    )
    failed = Draft(prompt="a cat", seed=9, failure="content_filter", detail="withheld")
    feedback = Feedback(aspect="counts", problem="two dogs", change="ask for one dog")
    return Exploration(
        idea=Idea(parts=("a dog like", picture(100), "on a beach")),
        seed=3,
        rounds=(
            DraftRound(drafts=(drafts[0], drafts[1], failed), choice=1, feedback=feedback),
            DraftRound(
                drafts=(drafts[2], replace(drafts[3], onto=Place(0, 1))),
                action="edit",
                choice=1,
                answers={"dog": True, "beach": False},
            ),
        ),
        best=Place(1, 1),
        final=(DraftScore(place=Place(1, 1), score=9, justification="one dog"),),
        questions=(
            Question(id="dog", subject="object", text="Is there a dog?"),
            Question(id="beach", subject="object", text="Is there a beach?", parents=("dog",)),
        ),
        comparisons=(
            PairComparison(
                champion=Place(0, 1), challenger=Place(1, 1), forward="second", backward="first"
            ),
        ),
        control=DraftRound(drafts=(drafts[4],), choice=0),
        provenance={"models": {"lmm": "m"}, "ended_by": "policy", "retries": {}},
    )


def test_an_idea_holds_text_and_images_in_order(tmp_path: Path) -> None:
    (tmp_path / "dog.PNG").write_bytes(images.encode_png(np.zeros((4, 4, 3), np.uint8)))
    idea = read_idea([f"a logo of {MARK}dog.PNG{MARK}, flat", "for a shop"], tmp_path, "idea")
    assert [type(part).__name__ for part in idea.parts] == ["str", "ImageRef", "str", "str"]
    assert idea.text == f"a logo of {MARK} , flat for a shop"
    assert len(idea.images) == 1


def test_a_file_of_ideas_knows_images_beside_itself(tmp_path: Path) -> None:
    folder = tmp_path / "ideas"
    folder.mkdir()
    (folder / "dog.png").write_bytes(images.encode_png(np.zeros((4, 4, 3), np.uint8)))
    (folder / "ideas.txt").write_text(f"a red bicycle\n\ndog.png{MARK}in the snow\n")
    first, second = read_ideas(folder / "ideas.txt")
    assert first.parts == ("a red bicycle",)
    assert second.text == f"{MARK} in the snow"
    assert first.digest != second.digest


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"a dog like {MARK}nowhere.png", "ideas.txt:2: .*nowhere.png: No such file"),
        (f"a dog like {MARK}text.png", "ideas.txt:2: .*text.png: not a PNG, WebP or JPEG"),
        (f"{MARK} {MARK}", "ideas.txt:2: an idea without text or image"),
        ("long " * 3000, "ideas.txt:2: .*characters; give at most"),
        (f"{MARK}dog.png" * 17, "ideas.txt:2: .*17 images; give at most 16"),
    ],
)
def test_a_line_that_is_no_idea_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "dog.png").write_bytes(images.encode_png(np.zeros((4, 4, 3), np.uint8)))
    (tmp_path / "ideas.txt").write_text(f"a star\n{line}\n")
    with pytest.raises(ValueError, match=said):
        read_ideas(tmp_path / "ideas.txt")


def test_a_file_without_ideas_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ideas.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="holds no ideas"):
        read_ideas(tmp_path / "ideas.txt")


def test_an_exploration_is_read_back_from_its_folder(tmp_path: Path) -> None:
    whole = explored()
    save_exploration(tmp_path, whole)
    found = load_exploration(tmp_path)
    assert [ref.png for ref in found.images] == [ref.png for ref in whole.images]
    assert found.with_images(whole.images) == whole
    names = {path.name for path in tmp_path.iterdir()}
    assert {"idea-1.png", "draft-1-1.png", "draft-2-2.png", "draft-0-1.png"} <= names
    assert "draft-1-3.png" not in names  # nothing was drawn


def test_a_folder_holds_one_exploration_at_a_time(tmp_path: Path) -> None:
    save_exploration(tmp_path, explored())
    (tmp_path / "notes.png").write_text("mine")
    shorter = replace(
        explored(), rounds=explored().rounds[:1], best=Place(0, 1), comparisons=(), final=()
    )
    save_exploration(tmp_path, shorter)
    assert not list(tmp_path.glob("draft-2-*"))
    assert (tmp_path / "notes.png").read_text() == "mine"


def test_the_way_to_the_picture_is_a_trajectory(tmp_path: Path) -> None:
    save_exploration(tmp_path, explored())
    told = load_trajectory(tmp_path)
    kinds = [type(step) for step in told.steps]
    assert kinds == [Plan, Sketch, Inspection, Refinement, Sketch, Stop]
    assert told.prompt == f"a dog like {MARK} on a beach"
    assert told.complete and told.num_flow_steps == 40 and len(told.inputs) == 1
    assert isinstance(told.steps[2], Inspection) and told.steps[2].critique == "two dogs"
    assert isinstance(told.steps[3], Refinement) and told.steps[3].instruction == "a dog, 3"


def test_what_broke_off_is_no_whole_trajectory() -> None:
    failed = replace(explored(), provenance={"failure": "refusal"})
    assert not failed.complete and not failed.trajectory().complete
    nothing = Exploration(idea=Idea(parts=("a dog",)), seed=0, provenance={"failure": "refusal"})
    assert nothing.trajectory().steps == () and nothing.refined is None


def test_memory_has_the_winner_of_each_round_and_its_feedback() -> None:
    first, second = explored().memory
    assert (first.prompt, second.prompt) == ("a dog, 1", "a dog, 3")
    assert first.feedback is not None and second.feedback is None
    assert (first.best, second.best) == (False, True)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("format",), "other/1", "format 'other/1'"),
        (("best",), [0, 2], "draft 1.3 has no image"),
        (("best",), [5, 0], "there is no draft 6.1"),
        (("best",), [0, True], "is no draft"),
        (("rounds", 0, "choice"), 2, "has no image"),
        (("rounds", 0, "drafts", 0, "score"), 11, "score 11; expected 1 to 10"),
        (("rounds", 0, "drafts", 0, "image"), "../secret.png", "secret"),
        (("rounds", 0, "feedback", "aspect"), "smell", "aspect is 'smell'"),
        (("rounds", 0, "drafts", 0, "cost"), {"usd": "much"}, "expected a number"),
        (("rounds", 1, "answers"), {"dog": 1}, "expected true or false"),
        (("final", 0, "score"), 0, "score 0; expected 1 to 10"),
        (("final", 0, "place"), [1], "is no draft"),
        (("comparisons", 0, "forward"), "both", "forward is 'both'"),
        (("questions", 0, "subject"), "mood", "'mood' is none"),
        (("idea",), [], "without text or image"),
        (("surprise",), 1, "unknown key 'surprise'"),
    ],
)
def test_a_damaged_record_is_refused(
    tmp_path: Path, place: tuple[str | int, ...], value: object, said: str
) -> None:
    save_exploration(tmp_path, explored())
    data = json.loads((tmp_path / EXPLORATION).read_text())
    node = data
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    with pytest.raises(ValueError, match=said):
        from_json(data)
    (tmp_path / EXPLORATION).write_text(json.dumps(data))
    with pytest.raises(ValueError, match=EXPLORATION):
        load_exploration(tmp_path)


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    save_exploration(tmp_path, explored())
    (tmp_path / "draft-1-2.png").unlink()
    with pytest.raises(ValueError, match=r"draft-1-2\.png"):
        load_exploration(tmp_path)


def test_orders_that_disagree_are_no_preference() -> None:
    def compared(forward: str, backward: str) -> PairComparison:
        return PairComparison(
            champion=Place(0, 0), challenger=Place(0, 1),
            forward=forward, backward=backward,  # type: ignore[arg-type]
        )  # fmt: skip

    assert compared("second", "first").replaced
    assert compared("first", "first").contradictory and not compared("first", "first").replaced
    assert compared("second", "second").contradictory
    assert not compared("first", "second").contradictory
    assert not compared("neither", "first").replaced
