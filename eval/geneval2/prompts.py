"""The prompts of GenEval 2: `geneval2_data.jsonl`, which the user fetches from its repository.

A line is `{"prompt": …, "atom_count": 3, "vqa_list": [[question, answer], …], "skills": [skill of
each question, …]}`. `a` is asked about and is no atom, so there can be more questions than atoms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.downloads import sha256_of
from eval.vqa.question import spellings
from staged import strict_json
from staged.lines import read_bounded, split_lines

SOURCE = "https://github.com/facebookresearch/GenEval2"
_MAX_FILE_BYTES = 64 * 1024 * 1024
_MAX_LINE_BYTES = 1024 * 1024
_FIELDS = {"prompt": str, "atom_count": int, "vqa_list": list, "skills": list}
_INSTRUCTION = "Answer in one word."


@dataclass(frozen=True, kw_only=True)
class AtomQuestion:
    """A question about an image.

    Attributes:
        text: The question, without the instruction on how to answer.
        answer: The right answer.
        skill: What it tests: object, attribute, count, position or verb.
    """

    text: str
    answer: str
    skill: str

    @property
    def asked(self) -> str:
        """Return the question as the model gets it."""
        return f"{self.text} {_INSTRUCTION}"

    @property
    def accepted(self) -> tuple[str, ...]:
        """Return the forms of the right answer that count."""
        return spellings(self.answer)


@dataclass(frozen=True, kw_only=True)
class Geneval2Prompt:
    """One prompt.

    Attributes:
        prompt_id: Its place in the file, from 0.
        text: What is drawn.
        atomicity: How many atoms it has.
        questions: About its atoms.
    """

    prompt_id: int
    text: str
    atomicity: int
    questions: tuple[AtomQuestion, ...]


@dataclass(frozen=True, kw_only=True)
class Geneval2PromptFile:
    """All prompts of a file.

    Attributes:
        prompts: In the file's order.
        variant: Their number, and twelve digits of their SHA-256, whatever the file's layout.
    """

    prompts: tuple[Geneval2Prompt, ...]
    variant: str


def load_prompts(path: Path) -> Geneval2PromptFile:
    """Read a file.

    Raises:
        ValueError: no such file, or a line is not a prompt; the message begins with `FILE:LINE`.
        OSError: the file cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; fetch geneval2_data.jsonl from {SOURCE}")
    content = read_bounded(path, max_bytes=_MAX_FILE_BYTES, what="a prompt file")
    prompts: list[Geneval2Prompt] = []
    records: list[dict[str, Any]] = []
    for line, place in split_lines(content, str(path), max_bytes=_MAX_LINE_BYTES):
        record = _record(strict_json.loads(line, place=place, max_bytes=_MAX_LINE_BYTES), place)
        prompts.append(_prompt(record, len(prompts), place))
        records.append(record)
    if not prompts:
        raise ValueError(f"{path}: no prompts")
    digest = sha256_of(strict_json.dump_lines(records))[:12]
    return Geneval2PromptFile(
        prompts=tuple(prompts), variant=f"{len(prompts)} prompts, sha256 {digest}"
    )


def _record(value: Any, place: str) -> dict[str, Any]:
    """Take the fields that count; others may have been added for other tools."""
    if isinstance(value, dict):
        value = {key: value[key] for key in _FIELDS if key in value}
    return strict_json.record(value, place, _FIELDS)


def _prompt(record: Mapping[str, Any], prompt_id: int, place: str) -> Geneval2Prompt:
    pairs, skills = record["vqa_list"], record["skills"]
    if not pairs or len(pairs) != len(skills):
        raise ValueError(
            f"{place}: {len(pairs)} questions and {len(skills)} skills; expected a skill for each "
            "question, and at least one"
        )
    if record["atom_count"] < 1:
        raise ValueError(f"{place}.atom_count: {record['atom_count']}; expected 1 or more")
    questions = []
    for index, (pair, skill) in enumerate(zip(pairs, skills, strict=True)):
        where = f"{place}.vqa_list[{index}]"
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"{where}: {pair!r:.80}; expected [question, answer]")
        text, answer = (strict_json.unicode_text(part, where) for part in pair)
        skill = strict_json.unicode_text(skill, f"{place}.skills[{index}]")
        if not (text.strip() and answer.strip() and skill.strip()):
            raise ValueError(f"{where}: an empty question, answer or skill")
        questions.append(AtomQuestion(text=text, answer=answer, skill=skill))
    return Geneval2Prompt(
        prompt_id=prompt_id,
        text=record["prompt"],
        atomicity=record["atom_count"],
        questions=tuple(questions),
    )
