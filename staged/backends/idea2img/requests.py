"""What Idea2Img asks a language model that sees: the words and their version.

The roles and what each is told are those of arXiv 2310.08541 (section 3), in words of our own;
comparisons in pairs and checklists go beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from staged.backends.idea2img.answers import (
    ChecklistAnswer,
    ComparisonAnswer,
    FeedbackAnswer,
    PromptsAnswer,
    RevisionAnswer,
    check_answer,
    prompts_answer,
    revision_answer,
    selection_answer,
)
from staged.backends.lmm.interleaved import interleaved
from staged.backends.lmm.request import LmmRequest
from staged.ideas.exploration import Draft, Remembered
from staged.ideas.idea import Idea
from staged.scene_graph import Question
from staged.trajectory import ImageRef

PROMPT_VERSION: Final = "1"
"""Raised with every change of the words below: answers to other words are not reused."""
_ASPECTS: Final = (
    "the number of things, their attributes, which things there are, how they stand to one "
    "another, their size, and the look of the whole"
)
_IDEA: Final = (
    "A user has an idea of a picture, told in text and images in the order in which they are meant."
)
_MODEL: Final = (
    "An image model reads one text prompt and nothing else: it sees neither the idea nor its "
    "images, so what matters in them must be said in words."
)


def prompts_request(
    idea: Idea, *, number: int, max_words: int, seed: int
) -> LmmRequest[PromptsAnswer]:
    """Ask for the first prompts."""
    return _request(
        "idea_prompts",
        f"{_IDEA} {_MODEL} Nothing is known yet of what it understands. Write {number} prompts, "
        f"each of at most {max_words} words, that a picture of the idea could come from. Say "
        "plainly what is to be seen. Let them differ from one another in what they say and how, "
        "so that something is learned from each.",
        {"idea": _told(idea), "number": number},
        prompts_answer(number, max_words),
        seed,
    )


def revision_request(
    idea: Idea,
    memory: Sequence[Remembered],
    *,
    number: int,
    max_words: int,
    may_edit: bool,
    seed: int,
) -> LmmRequest[PromptsAnswer] | LmmRequest[RevisionAnswer]:
    """Ask for the prompts of a further round.

    Args:
        idea: What is wanted.
        memory: All rounds so far; the last has feedback.
        number: How many prompts.
        max_words: Of each, at most.
        may_edit: Whether the best picture may be edited instead; the answer then says.
        seed: See `LmmRequest`.
    """
    words = (
        f"{_IDEA} {_MODEL} The memory holds what was tried so far: in each round the prompt that "
        "did best, the picture it gave, and the feedback on it. Conclude from it what this image "
        "model understands and what it gets wrong, and follow the last feedback. Write "
        f"{number} prompts, each of at most {max_words} words, that differ from one another and "
        "from those that were tried."
    )
    content = {"idea": _told(idea), "memory": _remembered(memory), "number": number}
    if not may_edit:
        return _request("idea_revision", words, content, prompts_answer(number, max_words), seed)
    return _request(
        "idea_revision",
        f"{words} The entry marked as best is the best picture so far. Where one small change "
        "would put it right and the rest is to stay, you may choose the action edit: the prompts "
        "are then instructions that change that picture. Otherwise choose regenerate.",
        {**content, "may_edit": True},
        revision_answer(number, max_words),
        seed,
    )


def selection_request(idea: Idea, drafts: Sequence[Draft], *, seed: int) -> LmmRequest[Any]:
    """Ask for scores of drafts and for the best one; numbers begin at 1."""
    return _request(
        "idea_selection",
        f"{_IDEA} Each draft is a picture with the prompt it was drawn from. Judge each by how "
        f"well it shows the idea, not its prompt: look at {_ASPECTS}. For every draft, by its "
        "number from 1, first say what is right and wrong in it, then give a whole score from 1 "
        "to 10. Then name the draft that is best: one with the highest score.",
        {
            "idea": _told(idea),
            "drafts": [
                {"draft": number, "prompt": draft.prompt, "image": _bytes(draft.image)}
                for number, draft in enumerate(drafts, 1)
            ],
        },
        selection_answer(len(drafts)),
        seed,
    )


def comparison_request(
    idea: Idea, first: ImageRef, second: ImageRef, *, seed: int
) -> LmmRequest[ComparisonAnswer]:
    """Ask which of two pictures shows the idea better."""
    return _request(
        "idea_comparison",
        f"{_IDEA} Compare two pictures by how well they show it: look at {_ASPECTS}. Say what "
        "tells them apart, then which is better: first, second, or neither where nothing that "
        "matters does. In which order they stand means nothing.",
        {"idea": _told(idea), "first": _bytes(first), "second": _bytes(second)},
        ComparisonAnswer,
        seed,
    )


def feedback_request(
    idea: Idea, memory: Sequence[Remembered], unmet: Sequence[str], *, seed: int
) -> LmmRequest[FeedbackAnswer]:
    """Ask for the one thing to improve in the last picture, or in the best where one is marked.

    Args:
        idea: What is wanted.
        memory: All rounds so far; the last has no feedback yet.
        unmet: Questions of a checklist that the picture does not answer with yes.
        seed: See `LmmRequest`.
    """
    content: dict[str, Any] = {"idea": _told(idea), "memory": _remembered(memory)}
    marked = any(entry.best for entry in memory)
    focus = "the picture marked as best" if marked else "the last picture"
    words = (
        f"{_IDEA} The memory holds what was tried so far: in each round a prompt, the picture it "
        f"gave, and the feedback on it. Look at {focus} and find the one thing whose improvement "
        f"would bring it closest to the idea, considering {_ASPECTS}. It must not be one that was "
        "raised before. Say what it is about, what is wrong, and how the prompt should change so "
        "that the next picture is better."
    )
    if unmet:
        content["unmet"] = list(unmet)
        words += " Somebody who checked the picture answered the unmet questions with no."
    return _request("idea_feedback", words, content, FeedbackAnswer, seed)


def checklist_request(idea: Idea, *, seed: int) -> LmmRequest[ChecklistAnswer]:
    """Ask for the questions that a picture of the idea answers with yes."""
    return _request(
        "idea_checklist",
        f"{_IDEA} Write the questions by which somebody who sees only a picture can tell whether "
        "it shows the idea. The answer to each must be yes where it does. Ask about one thing at "
        "a time: each thing that must be there, each attribute, number and relation, and nothing "
        "that the idea leaves open. A question that makes sense only if another holds names that "
        "one's id among its parents; parents come first.",
        {"idea": _told(idea)},
        ChecklistAnswer,
        seed,
    )


def check_request(
    idea: Idea, questions: Sequence[Question], image: ImageRef, *, seed: int
) -> LmmRequest[Any]:
    """Ask the questions of a checklist about a picture."""
    return _request(
        "idea_check",
        "Answer every question about the picture with yes or no, by looking, in the order in "
        "which they stand. Images of the idea are there for comparison only.",
        {
            "idea": _told(idea),
            "questions": [{"id": q.id, "question": q.text} for q in questions],
            "picture": _bytes(image),
        },
        check_answer(tuple(question.id for question in questions)),
        seed,
    )


def _request(
    purpose: str, instructions: str, content: Mapping[str, Any], answer: type[Any], seed: int
) -> LmmRequest[Any]:
    return LmmRequest(
        purpose=purpose,
        prompt_version=PROMPT_VERSION,
        instructions=instructions,
        content=interleaved(content),
        answer=answer,
        seed=seed,
    )


def _told(idea: Idea) -> list[str | bytes]:
    return [part if isinstance(part, str) else _bytes(part) for part in idea.parts]


def _remembered(memory: Sequence[Remembered]) -> list[dict[str, Any]]:
    entries = []
    for number, one in enumerate(memory, 1):
        entry: dict[str, Any] = {"round": number, "prompt": one.prompt, "image": _bytes(one.image)}
        if one.best:
            entry["best"] = True
        if one.feedback is not None:
            entry["feedback"] = {
                "aspect": one.feedback.aspect,
                "problem": one.feedback.problem,
                "change": one.feedback.change,
            }
        entries.append(entry)
    return entries


def _bytes(image: ImageRef | None) -> bytes:
    if image is None or image.png is None:
        raise ValueError("an image that is not loaded cannot be shown")
    return image.png
