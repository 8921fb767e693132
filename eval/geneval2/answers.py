"""Answers in a file: the probability of the right answer to every question about every image.

A line of ours is `{"prompt_id": 0, "image_id": 0, "probabilities": [0.98, 0.2, null], "prompt":
…, "judge": …}`, with `at_most` where a server left tokens out. A file that begins with `[` is the
reference's list of lists, one list for each prompt in the order of the prompts. What is missing,
no number, or outside [0, 1] is unscored.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from eval.geneval2.prompts import Geneval2Prompt, Geneval2PromptFile
from eval.results import only_one
from staged import strict_json
from staged.lines import read_bounded, split_lines, without_mark

MAX_LINE_BYTES = 1024 * 1024
MAX_FILE_BYTES = 256 * 1024 * 1024
MISSING = "no answers"
UNPARSED = "probability unparsed"
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class ImageAnswers:
    """What a model answered about one image.

    Attributes:
        prompt_id: The prompt's place in its file, from 0.
        image_id: Which of the prompt's images.
        probabilities: One for each question, in [0, 1]; None where there is none.
        at_most: What each can be at most, where some tokens were not seen.
        reasons: Of the questions without a probability, why.
        judge: Who answered, where the line tells.
        record: The line as it was.
    """

    prompt_id: int
    image_id: int
    probabilities: tuple[float | None, ...]
    at_most: tuple[float | None, ...]
    reasons: tuple[str, ...]
    judge: str = ""
    record: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """All of a file.

    Attributes:
        by_prompt: Answers about the images of each prompt, by prompt and image.
        judge: Who answered, where lines tell.
    """

    by_prompt: dict[int, list[ImageAnswers]]
    judge: str | None

    @property
    def num_answered(self) -> int:
        """Count questions with a probability."""
        return sum(
            probability is not None
            for images in self.by_prompt.values()
            for image in images
            for probability in image.probabilities
        )

    @property
    def unscored(self) -> Counter[str]:
        """Count questions without a probability by reason."""
        return Counter(
            reason
            for images in self.by_prompt.values()
            for image in images
            for reason in image.reasons
        )


def read_answers(
    path: Path, prompt_file: Geneval2PromptFile, *, images_per_prompt: int | None = None
) -> Answers:
    """Read a file and fill in what it lacks as unscored.

    Args:
        path: Of JSON lines, or of the reference's list.
        prompt_file: What was asked.
        images_per_prompt: How many images each prompt should have; by default the most that any
            of them has.

    Raises:
        ValueError: a line is no answer to these prompts, stands there twice, or answers come from
            several models. The message begins with `FILE:LINE`. Or there is none.
        OSError: the file cannot be read.
    """
    by_prompt: dict[int, list[ImageAnswers]] = {p.prompt_id: [] for p in prompt_file.prompts}
    judges: set[str] = set()
    for answers, place in _read(path, prompt_file):
        there = by_prompt[answers.prompt_id]
        if any(other.image_id == answers.image_id for other in there):
            raise ValueError(
                f"{place}: prompt_id {answers.prompt_id} with image_id {answers.image_id} stands "
                "there already; keep one line for each image"
            )
        there.append(answers)
        judges.add(answers.judge)
    if not any(by_prompt.values()):
        raise ValueError(f"{path}: no answers; `staged eval answer-geneval2` gets them")
    judge = only_one(judges, f"{path}: answers", "models")
    expected = images_per_prompt or max(map(len, by_prompt.values()))
    for prompt in prompt_file.prompts:
        images = by_prompt[prompt.prompt_id]
        free = (i for i in range(expected) if all(i != image.image_id for image in images))
        lacking = islice(free, max(expected - len(images), 0))
        images += [_missing(prompt, image_id) for image_id in lacking]
        images.sort(key=lambda image: image.image_id)
    return Answers(by_prompt=by_prompt, judge=judge)


def parse_line(content: bytes, prompt_file: Geneval2PromptFile, place: str) -> ImageAnswers:
    """Check one line; see `read_answers`."""
    record = strict_json.loads_object(content, place=place, max_bytes=MAX_LINE_BYTES)
    prompt_id, image_id = record.get("prompt_id"), record.get("image_id", 0)
    last = len(prompt_file.prompts) - 1
    if type(prompt_id) is not int or not 0 <= prompt_id <= last:
        raise ValueError(f"{place}.prompt_id: {prompt_id!r:.40}; expected 0 to {last}")
    if type(image_id) is not int or image_id < 0:
        raise ValueError(f"{place}.image_id: {image_id!r:.40}; expected 0 or more")
    prompt = prompt_file.prompts[prompt_id]
    if record.get("prompt", prompt.text) != prompt.text:
        raise ValueError(
            f"{place}: {record['prompt']!r:.60} is not prompt {prompt_id} of the prompt file, "
            f"{prompt.text!r:.60}; are these the prompts that were drawn?"
        )
    judge = record.get("judge")
    return ImageAnswers(
        prompt_id=prompt_id,
        image_id=image_id,
        judge=judge if type(judge) is str else "",
        record=record,
        **_scored(record, prompt, place),
    )


def _read(path: Path, prompt_file: Geneval2PromptFile) -> list[tuple[ImageAnswers, str]]:
    content = read_bounded(path, max_bytes=MAX_FILE_BYTES, what="a file of answers")
    if without_mark(content[:MAX_LINE_BYTES], str(path)).lstrip()[:1] == b"[":
        return _read_reference(content, prompt_file, str(path))
    lines = split_lines(content, str(path), max_bytes=MAX_LINE_BYTES)
    return [(parse_line(line, prompt_file, place), place) for line, place in lines]


def _read_reference(
    content: bytes, prompt_file: Geneval2PromptFile, place: str
) -> list[tuple[ImageAnswers, str]]:
    lists = strict_json.loads(content, place=place, max_bytes=MAX_FILE_BYTES)
    if len(lists) != len(prompt_file.prompts):
        raise ValueError(
            f"{place}: {len(lists)} lists of scores; expected one for each of the "
            f"{len(prompt_file.prompts)} prompts"
        )
    read = []
    for number, (prompt, scores) in enumerate(zip(prompt_file.prompts, lists, strict=True)):
        record, where = {"probabilities": scores}, f"{place}[{number}]"
        scored = _scored(record, prompt, where)
        read.append((ImageAnswers(prompt_id=number, image_id=0, record=record, **scored), where))
    return read


def _scored(record: dict[str, Any], prompt: Geneval2Prompt, place: str) -> dict[str, Any]:
    values = record.get("probabilities")
    num_questions = len(prompt.questions)
    if not isinstance(values, list) or len(values) != num_questions:
        found = f"{len(values)} of them" if isinstance(values, list) else type(values).__name__
        raise ValueError(
            f"{place}.probabilities: {found}; expected a list with one for each of the "
            f"{num_questions} questions about {prompt.text!r:.60}"
        )
    probabilities = tuple(map(_probability, values))
    bounds, given = (
        told
        if isinstance(told := record.get(name), list) and len(told) == num_questions
        else [None] * num_questions
        for name in ("at_most", "reasons")
    )
    return {
        "probabilities": probabilities,
        "at_most": tuple(map(_probability, bounds)),
        # Who answered may have said why there is no probability.
        "reasons": tuple(
            reason if type(reason) is str and reason else UNPARSED
            for reason, probability in zip(given, probabilities, strict=True)
            if probability is None
        ),
    }


def _probability(value: Any) -> float | None:
    if type(value) not in (int, float) or not 0 <= value <= 1 + _ROUNDING:
        return None
    return min(float(value), 1.0)


def _missing(prompt: Geneval2Prompt, image_id: int) -> ImageAnswers:
    nothing = (None,) * len(prompt.questions)
    return ImageAnswers(
        prompt_id=prompt.prompt_id,
        image_id=image_id,
        probabilities=nothing,
        at_most=nothing,
        reasons=(MISSING,) * len(prompt.questions),
        record={},
    )
