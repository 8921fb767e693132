"""The page of a data set: what is in it, what was left out and why, in words."""

import os
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from test_report import Page

from data_pipelines.__main__ import main
from data_pipelines.plan_sketch.intents import in_short
from data_pipelines.plan_sketch.mistakes import MistakeKind
from data_pipelines.reasons import mistake_in_words, reason_in_words
from staged.backends.lmm.outcomes import FailureKind
from staged.report.graphs import graph_drawings
from staged.scene_graph import Attribute, Relation, SceneGraph, SceneObject, delta
from staged.shards import read_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    made = ["prompts.count=24", "drawing.mistakes={wrong_color: 0.3, lost_object: 0.2}"]
    assert main(["plan-sketch", *made, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    out = folder / "page.html"
    assert main(["preview", str(folder), "--out", str(out), "--limit", "5"]) == 0
    return Page(out.read_text(encoding="utf-8"))


def test_the_page_says_first_what_became_of_the_prompts(page: Page) -> None:
    assert "of 24 prompts became trajectories." in page.text
    body = page.text[page.text.index("How to read this") + 1 :]  # behind the list of sections
    order = ("Samples", "What was left out, and why", "Left out", "More samples")
    places = [body.index(part) for part in order]
    assert places == sorted(places)


def test_reasons_are_said_in_words(page: Page) -> None:
    assert "Drawing a plan: an object does not look as planned" in page.text
    assert "The filter ✗ refused it drawing a plan:" in page.text
    assert "not as planned:" not in page.text and "judge_plan" not in page.text
    assert "not trained on" in page.text
    assert not page.all("script")


def test_a_sketch_stands_beside_what_it_changed(page: Page) -> None:
    shares = [int(share) for share in re.findall(r"(\d+)% changed", page.text)]
    assert shares and all(0 <= share < 60 for share in shares)
    pictures = Counter(image["alt"] for image in page.all("img"))
    assert pictures["What it changed"] == len(shares) < pictures["Sketch"]
    enlarged = [box.get("aria-label") for box in page.all("input")]
    assert enlarged.count("Enlarge: What it changed") == len(shares)
    assert enlarged.count("Enlarge: Sketch") == pictures["Sketch"]


def test_the_scene_graph_is_drawn_with_what_each_step_did_to_it(page: Page) -> None:
    drawn = [one["aria-label"] for one in page.all("svg") if one.get("class") == "scene"]
    assert drawn and all(one and one.startswith("Scene graph: ") for one in drawn)
    assert re.search(r"\+ [a-z]+", page.text)
    before = SceneGraph(
        [SceneObject(id="o1", class_name="heart"), SceneObject(id="o2", class_name="star")],
        [Attribute(object="o1", kind="color", value="red")],
    )
    after = SceneGraph(
        [before.objects[0], SceneObject(id="o3", class_name="ring")],
        [Attribute(object="o1", kind="color", value="blue")],
        [Relation(source="o3", name="left of", target="o1")],
    )
    first, second = graph_drawings([before.to_dict(), after.to_dict()])
    assert first is not None and second is not None
    assert [(row.mark, row.text) for row in first.rows] == [("+", "heart (red)"), ("+", "star")]
    assert [(row.mark, row.text) for row in second.rows] == [
        ("~", "heart (red) → heart (blue)"),
        ("−", "star"),
        ("+", "ring"),
    ]
    [arc] = second.arcs
    assert (arc.mark, arc.text) == ("+", "left of")
    assert "ring left of heart (red) → heart (blue) added" in second.words
    # It begins at the ring's row and ends at the heart's, and everything is inside.
    rows = {row.text: row.middle for row in second.rows}
    assert f" {rows['ring'] - 4:g} H" in arc.path
    assert f"V{rows['heart (red) → heart (blue)'] + 4:g}" in arc.path
    assert arc.x + 8 * len(arc.text) < second.width
    assert graph_drawings("odd") == graph_drawings([{"objects": 3}]) == []
    crowd = SceneGraph([SceneObject(id=f"o{n}", class_name="bird") for n in range(30)])
    assert graph_drawings([crowd.to_dict()]) == [None]


def test_readers_choose_by_reason_and_task_on_the_page_itself(page: Page) -> None:
    chosen = Counter(
        name
        for article in page.all("article")
        for name in (article["class"] or "").split()
        if name.startswith("chosen-")
    )
    radios = [box for box in page.all("input") if box.get("type") == "radio"]
    named = [box["id"] for box in radios if "id" in box]
    assert len(named) > 2 and len({box["name"] for box in radios}) == len(radios) - len(named)
    # Each choice hides, in its own section, whatever is not of it.
    for place in named:
        assert place is not None
        rule = f"section:has(#{place}:checked) .trajectory:not(.chosen-{place.split('-')[2]})"
        assert rule in page.text and chosen[f"chosen-{place.split('-')[2]}"] > 0


def test_what_is_more_than_a_page_goes_on_in_a_folder_beside_it(folder: Path) -> None:
    out = folder / "many.html"
    call = ["preview", str(folder), "--out", str(out), "--limit", "99"]
    assert main([*call, "--per-page", "4"]) == 0
    pages = [out]
    while forth := _link(pages[-1], "Next page"):
        pages.append(forth)
    assert len(pages) > 2 and _link(pages[-1], "First page") == out
    assert all(_link(after, "Page before") == page for page, after in pairwise(pages[1:]))
    assert sorted((folder / "many-pages").iterdir()) == sorted(pages[1:])
    keys: list[str] = []
    for page in pages:
        parsed = Page(page.read_text(encoding="utf-8"))
        assert 0 < len(parsed.all("article")) <= 8
        keys += re.findall(r"sample (\d{8})|prompt (\d+) ", parsed.text)
    assert len(set(keys)) == len(keys) == 24
    assert main([*call, "--per-page", "99"]) == 0
    assert not (folder / "many-pages").exists() and _link(out, "Next page") is None


def _link(page: Path, words: str) -> Path | None:
    found = re.search(rf'<a href="([^"]+)">{words}</a>', page.read_text(encoding="utf-8"))
    return None if found is None else Path(os.path.normpath(page.parent / found[1]))


def shown(folder: Path, *wanted: str) -> Page:
    out = folder / "chosen.html"
    assert main(["preview", str(folder), "--out", str(out), "--limit", "99", *wanted]) == 0
    return Page(out.read_text(encoding="utf-8"))


def test_what_is_wanted_is_chosen_by_end_reason_and_prompt(folder: Path) -> None:
    everything = len(shown(folder).all("article"))
    kept = shown(folder, "--only", "accepted")
    left_out = shown(folder, "--only", "rejected", "--only", "failed")
    assert len(kept.all("article")) + len(left_out.all("article")) == everything == 24
    assert "Shown are only: accepted." in kept.text
    assert "The filter" not in kept.text and "The filter ✗ refused it" in left_out.text
    colours = shown(folder, "--reason", "Does not look as planned")
    same = shown(folder, "--reason", "attribute not as planned")
    assert 0 < len(colours.all("article")) < len(left_out.all("article"))
    assert len(colours.all("article")) == len(same.all("article"))
    assert colours.text.count("does not look as planned") >= len(colours.all("article"))
    prompts = [sample.trajectory.prompt for sample in read_shards(folder)]
    words = prompts[0].removeprefix("a photo of")
    some = sum(words in prompt for prompt in prompts)
    found = shown(folder, "--only", "accepted", "--prompt", words.upper())
    assert 0 < len(found.all("article")) == some < len(prompts)
    task = next(read_shards(folder)).trajectory.task
    assert 0 < len(shown(folder, "--task", str(task)).all("article")) < everything


def test_a_page_of_nothing_is_refused_with_what_was_wanted(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no trajectories to show\. .*prompts with 'whale'"):
        main(["preview", str(folder), "--prompt", "whale"])


def test_steps_are_named_by_what_is_drawn_not_by_ids(page: Page) -> None:
    assert re.search(r"Round 1 add [a-z]+ ", page.text)
    assert not re.search(r"\bo[0-9]+\b", page.text)


def test_objects_of_one_class_are_told_apart() -> None:
    before = SceneGraph([SceneObject(id="o1", class_name="heart")])
    both = SceneGraph([*before.objects, SceneObject(id="o2", class_name="heart")])
    placed = SceneGraph(both.objects, relations=[Relation(source="o2", name="above", target="o1")])
    assert in_short(delta(SceneGraph(), before)) == "add heart"
    assert in_short(delta(before, both)) == "add heart 2"
    assert in_short(delta(both, before)) == "remove heart 2"
    assert in_short(delta(both, placed)) == "move heart 2 above heart 1"


@pytest.mark.parametrize(
    ("stage", "reason", "words"),
    [
        ("refine", "something else changed", "correcting a sketch: something changed that was"),
        (
            "judge_sketch",
            "wrong lost not seen",
            "judging a sketch: the inspector did not see the deliberate mistake (a lost object)",
        ),
        ("scene_graph", "more than 5 objects", "reading the prompt: the scene has more than 5"),
        ("judge_step", "timeout", "checking a sketch against its plan: the service did not"),
        ("new stage", "new reason", "new stage: new reason"),
    ],
)
def test_a_reason_in_words(stage: str, reason: str, words: str) -> None:
    assert reason_in_words(stage, reason).startswith(words)


def test_every_failure_and_every_mistake_has_words() -> None:
    for kind in FailureKind.__args__:  # type: ignore[attr-defined]
        assert "_" not in reason_in_words("draw", kind), kind
        assert reason_in_words("draw", kind) != f"drawing a plan: {kind}"
    for mistake in get_args(MistakeKind):
        assert mistake_in_words(f"plan: {mistake}") != f"{mistake} in a plan"
    assert mistake_in_words("anything") == "anything"
