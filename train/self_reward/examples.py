"""Examples of question and answer, on disk in the form that TRL reads.

    {"prompt": [{"role": "user", "content": [{"type": "image"}, …, {"type": "text", "text": …}]}],
     "completion": [{"role": "assistant", "content": …}], "images": ["pictures/1.png", …]}

or, where one answer is preferred to another, with `chosen` and `rejected` for `completion`. Paths
are relative to the file. `write_swift` writes the same for ms-swift.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staged import images, strict_json
from staged.jobs.files import write_whole
from staged.lines import MAX_LINE_BYTES, read_lines


@dataclass(frozen=True, kw_only=True)
class Example:
    """A question, its answer, and perhaps an answer that is worse.

    Attributes:
        question: In words.
        answer: The one that is right, or preferred.
        rejected: The one that it is preferred to; None where there is none.
        images: Files of the pictures that come before the question.
    """

    question: str
    answer: str
    rejected: str | None = None
    images: tuple[Path, ...] = ()


def conversation(question: str, num_images: int) -> list[dict[str, Any]]:
    """Return a question as messages: pictures first."""
    shown: list[dict[str, Any]] = [{"type": "image"}] * num_images
    return [{"role": "user", "content": [*shown, {"type": "text", "text": question}]}]


def answered(text: str) -> list[dict[str, Any]]:
    """Return an answer as messages."""
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def as_trl(example: Example, images: Sequence[Any]) -> dict[str, Any]:
    """Return what TRL trains on.

    Args:
        example: What it is about.
        images: Its pictures, in whatever form they are wanted.
    """
    answers = {"completion": answered(example.answer)}
    if example.rejected is not None:
        answers = {"chosen": answered(example.answer), "rejected": answered(example.rejected)}
    prompt = conversation(example.question, len(example.images))
    return {"prompt": prompt, **answers, "images": list(images)}


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write examples, whole or not at all; returns how many."""
    return _write(path, (as_trl(one, _names(one, path)) for one in examples))


def write_swift(path: Path, examples: Iterable[Example]) -> int:
    """Write examples as ms-swift reads them, for SFT or, with `rejected_response`, for DPO."""

    def record(one: Example) -> dict[str, Any]:
        messages = [
            {"role": "user", "content": "<image>" * len(one.images) + one.question},
            {"role": "assistant", "content": one.answer},
        ]
        worse = {} if one.rejected is None else {"rejected_response": one.rejected}
        return {"messages": messages, **worse, "images": _names(one, path)}

    return _write(path, (record(one) for one in examples))


def read_examples(path: Path) -> list[Example]:
    """Read what `write_examples` wrote.

    Raises:
        ValueError: A line is anything else, or a picture is missing; names file and line.
        OSError: The file cannot be read.
    """
    found = list(_read(path))
    if not found:
        raise ValueError(f"{path} holds no examples")
    return found


def keep_picture(folder: Path, encoded: bytes) -> Path:
    """Write an encoded picture under its digest, once; returns where.

    Raises:
        ValueError: It is no picture.
    """
    extension, _, _ = images.probe(encoded)
    path = folder / f"{hashlib.sha256(encoded).hexdigest()[:32]}.{extension}"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, encoded)
    return path


def _read(path: Path) -> Iterator[Example]:
    for line in read_lines(path):
        data = strict_json.loads(line.content, place=line.place, max_bytes=MAX_LINE_BYTES)
        try:
            yield _example(data, path.parent)
        except (ValueError, KeyError, TypeError) as error:
            why = f"{error!r} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{line.place}: no example: {why}") from None


def _example(data: Any, folder: Path) -> Example:
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        raise ValueError("expected prompt, images, and completion or chosen, rejected")
    names = data["images"]
    if any(not isinstance(name, str) for name in names):
        raise ValueError(f"images {names!r:.80}: expected paths")
    images = tuple(folder / name for name in names)
    for image in images:
        if not image.is_file():
            raise ValueError(f"there is no picture {image}")
    [asked] = data["prompt"]
    parts = [part for part in asked["content"] if part["type"] == "text"]
    if len(parts) != 1 or len(asked["content"]) != 1 + len(images):
        raise ValueError(f"{len(images)} pictures do not fit the prompt; give each its part")
    answers = {
        name: _text(data[name]) for name in ("completion", "chosen", "rejected") if name in data
    }
    if answers.keys() not in ({"completion"}, {"chosen", "rejected"}):
        raise ValueError(f"answers {', '.join(answers) or 'missing'}; expected completion, or both")
    answer = answers.get("completion") or answers.get("chosen") or ""
    return Example(
        question=str(parts[0]["text"]),
        answer=answer,
        rejected=answers.get("rejected"),
        images=images,
    )


def _text(messages: Any) -> str:
    [message] = messages
    [part] = message["content"]
    if message["role"] != "assistant" or not isinstance(part["text"], str) or not part["text"]:
        raise ValueError("an answer is one text of the assistant")
    return str(part["text"])


def _names(example: Example, path: Path) -> list[str]:
    """Paths of an example's pictures, relative to the file that names them."""
    folder = path.parent.resolve()
    return [os.path.relpath(image.resolve(), folder) for image in example.images]


def _write(path: Path, records: Iterable[dict[str, Any]]) -> int:
    lines = [strict_json.dumps(record) for record in records]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(f"{line}\n" for line in lines).encode())
    return len(lines)
