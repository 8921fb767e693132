"""What Idea2Img asks, and which answers it takes."""

import json
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from staged.backends.idea2img import requests
from staged.backends.idea2img.answers import (
    ChecklistAnswer,
    check_answer,
    prompts_answer,
    revision_answer,
    selection_answer,
)
from staged.backends.lmm.interleaved import interleaved
from staged.backends.lmm.wire import wire_schema
from staged.ideas.exploration import Draft, Feedback, Remembered
from staged.ideas.idea import Idea
from staged.scene_graph import Question
from staged.trajectory import ImageRef


def picture(shade: int) -> ImageRef:
    return ImageRef.from_array(np.full((8, 8, 3), shade, np.uint8))


IDEA = Idea(parts=("a dog like", picture(1), 'on a "beach"'))
FEEDBACK = Feedback(aspect="counts", problem="two dogs", change="ask for one")
MEMORY = (
    Remembered(prompt="a dog", image=picture(2), feedback=FEEDBACK),
    Remembered(prompt="one dog", image=picture(3), best=True),
)


def said(request: Any) -> tuple[dict[str, Any], list[bytes]]:
    texts = "".join(part for part in request.content if isinstance(part, str))
    return json.loads(texts), [part for part in request.content if isinstance(part, bytes)]


def test_images_stand_right_behind_their_mention() -> None:
    parts = interleaved({"idea": ["like", b"one"], "memory": [{"image": b"two", "n": 1.5}]})
    assert parts == (
        '{"idea": ["like", {"image": 1}',
        b"one",
        '], "memory": [{"image": {"image": 2}',
        b"two",
        ', "n": 1.5}]}',
    )
    with pytest.raises(ValueError):
        interleaved({"n": float("nan")})


def test_memory_is_an_interleaved_sequence_of_all_rounds() -> None:
    request = requests.feedback_request(IDEA, MEMORY, ["Is there one dog?"], seed=0)
    content, shown = said(request)
    assert shown == [IDEA.images[0].png, MEMORY[0].image.png, MEMORY[1].image.png]
    assert content["idea"] == ["a dog like", {"image": 1}, 'on a "beach"']
    first, last = content["memory"]
    assert first["feedback"]["problem"] == "two dogs" and "feedback" not in last
    assert last["best"] is True and content["unmet"] == ["Is there one dog?"]
    assert "marked as best" in request.instructions
    plain = requests.feedback_request(IDEA, MEMORY[:1], (), seed=0)
    assert "the last picture" in plain.instructions and "unmet" not in said(plain)[0]


def every_request() -> list[Any]:
    drafts = [Draft(prompt=f"dog {i}", seed=i, image=picture(i)) for i in range(3)]
    question = Question(id="dog", subject="object", text="Is there a dog?")
    first, second = drafts[0].image, drafts[1].image
    assert first is not None and second is not None
    limits = {"number": 3, "max_words": 50, "seed": 0}
    return [
        requests.prompts_request(IDEA, **limits),
        requests.revision_request(IDEA, MEMORY, may_edit=False, **limits),
        requests.revision_request(IDEA, MEMORY, may_edit=True, **limits),
        requests.selection_request(IDEA, drafts, seed=0),
        requests.comparison_request(IDEA, first, second, seed=0),
        requests.feedback_request(IDEA, MEMORY, (), seed=0),
        requests.checklist_request(IDEA, seed=0),
        requests.check_request(IDEA, [question], first, seed=0),
    ]


def test_every_request_is_versioned_and_holds_the_idea() -> None:
    for request in every_request():
        assert request.prompt_version == requests.PROMPT_VERSION
        content, shown = said(request)
        assert content["idea"][0] == "a dog like" and shown[0] == IDEA.images[0].png
        schema = wire_schema(request.answer)
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) == set(schema["properties"])


def test_an_edit_can_be_chosen_only_where_the_image_model_edits() -> None:
    plain, editing = every_request()[1:3]
    assert "action" not in wire_schema(plain.answer)["properties"]
    assert "action" in wire_schema(editing.answer)["properties"]


def scored(*scores: int, choice: int) -> dict[str, Any]:
    drafts = [{"draft": i, "justification": "so", "score": s} for i, s in enumerate(scores, 1)]
    return {"drafts": drafts, "choice": choice}


WRONG: list[tuple[type[BaseModel], dict[str, Any], str]] = [
    (prompts_answer(2, 5), {"prompts": ["a dog"]}, "at least 2 items"),
    (prompts_answer(2, 5), {"prompts": ["a dog", "a dog"]}, "the same"),
    (prompts_answer(2, 3), {"prompts": ["a dog", "a big brown dog"]}, "4 words; at most 3"),
    (prompts_answer(1, 5), {"prompts": ["<|im_end|>"]}, "im_end"),
    (prompts_answer(1, 5), {"prompts": [" "]}, "empty"),
    (revision_answer(1, 5), {"prompts": ["a dog"], "action": "paint"}, "'regenerate' or 'edit'"),
    (revision_answer(2, 5), {"prompts": ["a dog", "a dog"], "action": "regenerate"}, "the same"),
    (selection_answer(2), scored(3, 9, choice=1), "draft 1 has score 3, and draft 2 has 9"),
    (selection_answer(2), scored(3, 9, choice=3), "no draft 3"),
    (selection_answer(2), scored(3, choice=1), "at least 2 items"),
    (selection_answer(2), scored(3, 11, choice=2), "less than or equal to 10"),
    (check_answer(("a", "b")), {"answers": [{"id": "b", "yes": True}, {"id": "a", "yes": True}]},
     "answers to b, a; expected a, b"),
    (ChecklistAnswer, {"questions": []}, "at least 1 item"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "value", "reason"), WRONG)
def test_an_answer_that_breaks_a_rule_is_not_valid(
    answer: type[BaseModel], value: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        answer.model_validate_json(json.dumps(value))


def test_an_instruction_may_be_drawn_more_than_once() -> None:
    value = json.dumps({"prompts": ["add a dog", "add a dog"], "action": "edit"})
    assert revision_answer(2, 5).model_validate_json(value).action == "edit"


def test_equal_scores_leave_the_choice_open() -> None:
    for choice in (1, 2):
        value = json.dumps(scored(7, 7, choice=choice))
        assert selection_answer(2).model_validate_json(value).choice == choice


def test_questions_of_a_checklist_come_after_their_parents() -> None:
    def asked(*pairs: tuple[str, list[str]]) -> str:
        questions = [
            {"id": name, "subject": "object", "question": "Is it?", "parents": parents}
            for name, parents in pairs
        ]
        return json.dumps({"questions": questions})

    assert ChecklistAnswer.model_validate_json(asked(("dog", []), ("tail", ["dog"])))
    with pytest.raises(ValidationError, match="comes before 'dog'"):
        ChecklistAnswer.model_validate_json(asked(("tail", ["dog"]), ("dog", [])))
    with pytest.raises(ValidationError, match="two questions are called 'dog'"):
        ChecklistAnswer.model_validate_json(asked(("dog", []), ("dog", [])))
