r"""Conversations about images in JSON, as LLaVA, ShareGPT and BAGEL have them.

    {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"},
                                         {"from": "gpt", "value": "A star."}]}

`images` may be a list, `messages` with `role` and `content` may stand for `conversations`, and a
`content` may be a list of texts and images, as services take them. Images stand before the text in
our sequences, so that `<image>` says which turn they come with and not where in it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from data_pipelines.imports.form import answered, as_list, refs
from data_pipelines.rows import SourceRow
from staged.tables import ParquetFile
from staged.trajectory import Trajectory

Turns = Literal["each", "first"]

_IMAGE: Final = "<image>"
_ASKING: Final = ("human", "user")
_ANSWERING: Final = ("gpt", "assistant")
_CONVERSATIONS: Final = ("conversations", "messages")
_IMAGES: Final = ("image", "images")


@dataclass(frozen=True)
class _Turn:
    question: str
    answer: str
    num_images: int


class Conversations:
    """A sample of each answer, with what was said before it in its prompt, or of the first alone.

    Args:
        turns: Of which answers.
    """

    counting: Sequence[str] = _CONVERSATIONS

    def __init__(self, turns: Turns = "each") -> None:
        """Keep which."""
        self._turns = turns

    def columns(self, file: ParquetFile) -> Sequence[str]:
        """Those that are there, of either spelling."""
        found = [name for name in (*_CONVERSATIONS, *_IMAGES, "video") if name in file.names]
        if not set(_CONVERSATIONS) & set(found):
            file.require(_CONVERSATIONS[:1])
        return found

    def parts(self, row: SourceRow) -> int:
        """Count the answers."""
        return 1 if self._turns == "first" else len(_read(row)[1])

    def trajectory(self, row: SourceRow, part: int, dice: random.Random) -> Trajectory:
        """Answer one question."""
        if row.value("video"):
            raise row.bad("video", "it is about a video; only images are read")
        system, turns = _read(row)
        pictures = [picture for name in _IMAGES for picture in as_list(row.value(name))]
        named = sum(turn.num_images for turn in turns)
        if named > len(pictures):
            raise row.bad("missing image", f"{named} times {_IMAGE} and {len(pictures)} images")
        # Those that no turn names come first, as BAGEL reads them.
        shown = len(pictures) - named + sum(turn.num_images for turn in turns[: part + 1])
        said = [text for turn in turns[:part] for text in (turn.question, turn.answer)]
        inputs = [row.image_of(picture, "image") for picture in pictures[:shown]]
        return Trajectory(
            prompt="\n".join([*said, turns[part].question]),
            system=system,
            inputs=refs(inputs),
            task="understanding",
            steps=answered(turns[part].answer),
        )


def _read(row: SourceRow) -> tuple[str | None, list[_Turn]]:
    """The system text, and questions with their answers.

    Raises:
        BadRowError: They do not follow one another.
    """
    field = next((name for name in _CONVERSATIONS if row.value(name) is not None), "conversations")
    system: str | None = None
    turns: list[_Turn] = []
    question: tuple[str, int] | None = None
    for number, message in enumerate(row.items(field)):
        place = f"{field}.{number}"
        role, text, num_images = _message(row, message, place)
        if role == "system" and not turns and question is None:
            system = text or None
        elif role in _ASKING and question is None:
            question = text, num_images
        elif role in _ANSWERING and question is not None:
            turns.append(_Turn(question[0], text, question[1]))
            question = None
        else:
            raise row.bad("bad order", f"{place}: {role!r:.40} may not speak here")
    if not turns or question is not None:
        raise row.bad("missing answer", f"{field}: no answer to the last question")
    return system, turns


def _message(row: SourceRow, message: Any, place: str) -> tuple[str, str, int]:
    """Who speaks, the text, and how many images come with it."""
    if not isinstance(message, Mapping):
        raise row.bad("bad message", f"{place}: {message!r:.60} is no message")
    role = message.get("from", message.get("role"))
    content = message.get("value", message.get("content"))
    if isinstance(content, list):
        parts = [part if isinstance(part, Mapping) else {} for part in content]
        content = "\n".join(
            str(part["text"]) if part.get("type") == "text" and "text" in part else _IMAGE
            for part in parts
        )
    if not isinstance(role, str) or not isinstance(content, str):
        raise row.bad("bad message", f"{place}: {message!r:.60} has no speaker and text")
    if _IMAGE in content and role in _ANSWERING:
        raise row.bad("image in an answer", f"{place}: answers are text; it has {_IMAGE}")
    lines = (line.strip() for line in content.replace(_IMAGE, "\n").split("\n"))
    # Where a placeholder stood there is a line too many.
    kept = content if _IMAGE not in content else "\n".join(filter(None, lines))
    return role, kept.strip(), content.count(_IMAGE)
