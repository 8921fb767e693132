"""The page of explorations."""

import asyncio
from dataclasses import replace

import pytest
from exploring import Habits, explored

from staged.ideas.exploration import Exploration
from staged.ideas.idea import Idea
from staged.loops.idea2img.policy import PRESETS, IdeaPolicy
from staged.report import Explorations, explored_report
from staged.shapes.sight.wishes import judged_exploration


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Exploration]:
    def explore(idea: str, policy: IdeaPolicy, model: Habits) -> Exploration:
        folder = tmp_path_factory.mktemp("explored")
        return judged_exploration(asyncio.run(explored(idea, folder, policy=policy, model=model)))

    best = replace(PRESETS["best"], control="matched")
    return [
        explore("something red and a hexagon", best, Habits(edits=True)),
        explore("two blue things", PRESETS["paper"], Habits()),
        explore("a hexagon", PRESETS["paper"], Habits(refuses=lambda prompt: True)),
    ]


def test_a_page_of_one_opens_with_its_picture_and_says_who_thinks_what(
    found: list[Exploration],
) -> None:
    page = explored_report(found[:1], expect="little", notes=["by hand"]).html()
    for words in ("something red and a hexagon", "The inspector", "4 of 4 hold", "The detector",
                  "Before and after", "own prompt", "edits of the best", "onto 1.",
                  "chosen in the end", "Feedback", "as many", "little", "by hand"):  # fmt: skip
        assert words in page, words
    assert page.count("<img") == 1 + 3 + found[0].num_drafts * 2


def test_a_page_of_many_begins_with_a_sheet(found: list[Exploration]) -> None:
    page = explored_report(found, title="Three ideas").html()
    assert "Three ideas" in page and page.count("<details>") == 3
    assert 'href="#shown-1-2"' in page and 'id="shown-1-2"' in page
    assert "10 of 10" in page and "Of all rounds" in page
    assert "ended early" in page and "content_filter" in page and "withheld" in page


def test_what_a_model_wrote_is_shown_and_never_run(found: list[Exploration]) -> None:
    bad = "<script>alert(1)</script>"
    one = found[1]
    first = replace(one.rounds[0].drafts[0], prompt=bad, justification=bad)
    rounds = (replace(one.rounds[0], drafts=(first, *one.rounds[0].drafts[1:])), *one.rounds[1:])
    page = explored_report([replace(one, rounds=rounds, idea=Idea(parts=(bad,)))]).html()
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_a_verdict_in_another_form_is_none(found: list[Exploration]) -> None:
    """A list in the place of a mapping ended the page with an error."""
    for odd in ("x", [1], 3, {"correct": "yes"}):
        for said in (odd, {"refined": odd}):
            one = replace(found[0], provenance=found[0].provenance | {"detector": said})
            assert "The detector" not in explored_report([one]).html(), said
    right = {"refined": {"correct": True, "reasons": "none"}}
    one = replace(found[0], provenance=found[0].provenance | {"detector": right})
    assert "The detector" in explored_report([one]).html()


def test_outcomes_belong_to_explorations(found: list[Exploration]) -> None:
    with pytest.raises(ValueError, match="0 outcomes for 3 explorations"):
        Explorations(title="a", explorations=found, outcomes=[])
