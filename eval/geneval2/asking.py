"""Asking about images: one line of answers for each, kept as soon as all of them are there.

What lies in the file already is not asked again, if image, prompt and model are the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.downloads import file_sha256
from eval.geneval2.answers import parse_line
from eval.geneval2.prompts import Geneval2Prompt, Geneval2PromptFile
from eval.kept import Filled, Keep, KeptLine, Key, fill
from eval.pictures import Picture
from eval.vqa.question import Answerer, VqaAnswer, VqaQuestion
from staged import strict_json
from staged.jobs.rank import Rank


@dataclass(frozen=True)
class _Image:
    """An image with the line that it will have."""

    prompt: Geneval2Prompt
    picture: Picture
    record: dict[str, Any]


def ask_about(
    pictures: Sequence[Picture],
    prompt_file: Geneval2PromptFile,
    answerer: Answerer,
    out: Path,
    *,
    rank: Rank | None = None,
) -> Filled:
    """Ask all questions about all images.

    Args:
        pictures: Of these prompts.
        prompt_file: What is asked.
        answerer: Who answers.
        out: File of JSON lines, as `eval.geneval2.answers` reads it.
        rank: Which of the images are this process's; all by default.

    Raises:
        ValueError: a picture is of no prompt of the file, or every question would fail.
        BudgetError: the budget is spent; whole lines are kept.
        OSError: a file cannot be read or written.
    """
    images = list(_images(pictures, prompt_file, answerer.name))

    def read(line: bytes, place: str) -> KeptLine:
        answers = parse_line(line, prompt_file, place)
        return KeptLine(key=_key(answers.record), failed=bool(answers.reasons))

    def produce(missing: list[int], keep: Keep) -> None:
        questions, owners = [], []
        for index in missing:
            image = images[index]
            if image.record["sha256"] is None:
                no_image = VqaAnswer(probability=None, reason="no image")
                keep(index, _line(image, [no_image] * len(image.prompt.questions)))
                continue
            for question in image.prompt.questions:
                owners.append(index)
                questions.append(
                    VqaQuestion(
                        image=image.picture.path, text=question.asked, accepted=question.accepted
                    )
                )
        collected: defaultdict[int, dict[int, VqaAnswer]] = defaultdict(dict)

        def collect(question: int, answer: VqaAnswer) -> None:
            index = owners[question]
            collected[index][question] = answer
            if len(collected[index]) == len(images[index].prompt.questions):
                answers = collected.pop(index)
                keep(index, _line(images[index], [answers[n] for n in sorted(answers)]))

        answerer.answer(questions, collect)

    return fill(out, [_key(image.record) for image in images], read, produce, rank=rank or Rank())


def _images(
    pictures: Sequence[Picture], prompt_file: Geneval2PromptFile, judge: str
) -> list[_Image]:
    by_text: defaultdict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        by_text[picture.prompt].append(picture)
    unknown = by_text.keys() - {prompt.text for prompt in prompt_file.prompts}
    if unknown:
        raise ValueError(
            f"{len(unknown)} prompts of the images are not in the prompt file, such as "
            f"{min(unknown)!r:.80}; are these the prompts that were drawn?"
        )
    return [
        _Image(
            prompt,
            picture,
            {
                "prompt_id": prompt.prompt_id,
                "image_id": image_id,
                "prompt": prompt.text,
                "image": picture.name,
                "sha256": file_sha256(picture.path),
                "judge": judge,
            },
        )
        for prompt in prompt_file.prompts
        for image_id, picture in enumerate(by_text[prompt.text])
    ]


def _key(record: Mapping[str, Any]) -> Key:
    """Return what must be the same for a line to stand; as JSON, for it may hold anything."""
    names = ("prompt_id", "image_id", "image", "sha256", "judge")
    return tuple(strict_json.dumps(record.get(name)) for name in names)


def _line(image: _Image, answers: Sequence[VqaAnswer]) -> dict[str, Any]:
    record = {**image.record, "probabilities": [answer.probability for answer in answers]}
    if any(answer.at_most is not None for answer in answers):
        record["at_most"] = [answer.at_most for answer in answers]
    if any(answer.reason for answer in answers):
        record["reasons"] = [answer.reason or None for answer in answers]
        record["details"] = [answer.detail or None for answer in answers]
    return record
