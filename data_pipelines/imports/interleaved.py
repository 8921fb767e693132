"""Chains of thoughts and pictures to an answer, as Zebra-CoT and ThinkMorph have them.

The columns are those of their data sets on Hugging Face (arXiv 2507.16746 and 2510.27492).
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from data_pipelines.imports.form import OneSample, numbered, refs, thought, within_tags
from data_pipelines.rows import SourceRow
from staged.tables import ParquetFile
from staged.trajectory import Answer, ImageRef, Sketch, Step, Stop, Trajectory

_PLACE: Final = re.compile(r"<image_start>\s*\[([A-Za-z_]+_[0-9]+)\]\s*<image_end>")
_COUNTED: Final = re.compile(r"^[ \t]*thought[ \t]+[0-9]+[ \t]*:[ \t]*", re.I | re.M)
_QUESTION, _TRACE, _ANSWER = "Question", "Text Reasoning Trace", "Final Answer"


class ZebraCot(OneSample):
    """`Question`, `Text Reasoning Trace` and `Final Answer`.

    The texts name `problem_image_N` and `reasoning_image_N` where the pictures stand.
    """

    def columns(self, file: ParquetFile) -> Sequence[str]:
        """Texts, and as many pictures as there are columns of them."""
        names = (_QUESTION, _TRACE, _ANSWER)
        file.require(names)
        stems = ("problem_image", "reasoning_image")
        return (*names, *(name for stem in stems for name in numbered(file.names, stem).values()))

    def trajectory(self, row: SourceRow, part: int, dice: random.Random) -> Trajectory:
        """Think and draw in turn, and answer."""
        question = row.text(_QUESTION)
        given = list(dict.fromkeys(_PLACE.findall(question)))
        given += [n for n in _there(row, "problem_image").values() if n not in given]
        # Inputs stand before the text, so that a single one needs no mention in it.
        shown = {name: "" if len(given) == 1 else f"[image {n}]" for n, name in enumerate(given, 1)}
        pieces = _PLACE.split(row.text(_TRACE))
        steps: list[Step] = []
        text = ""
        for number, piece in enumerate(pieces):
            if number % 2 == 0:
                text = f"{text} {_COUNTED.sub('', piece).strip()}".strip()
            elif piece in shown:  # looked at again, not drawn
                text = f"{text} {shown[piece]}".strip()
            else:
                steps += _drawn(row, text, piece)
                text = ""
                shown[piece] = f"[image {len(shown) + 1}]"
        return Trajectory(
            prompt=_PLACE.sub(lambda match: shown[match[1]], question).strip(),
            inputs=refs([row.image(name) for name in given]),
            task="interleaved",
            steps=_ended(row, steps, text, row.text(_ANSWER)),
        )


class ThinkMorph(OneSample):
    """`question`, `answer` and `problem_image_N`, and what comes in turn.

    That is `resoning_thought_N` (so spelt) and `reasoning_image_N`.
    """

    def columns(self, file: ParquetFile) -> Sequence[str]:
        """Texts, and as many thoughts and pictures as there are columns of them."""
        names = ("question", "answer")
        file.require(names)
        more = [*numbered(file.names, *_THOUGHTS).values()]
        if not more:
            file.require([f"{_THOUGHTS[0]}_0"])
        for stems in (("problem_image",), _PICTURES):
            more += numbered(file.names, *stems).values()
        return (*names, *more, *(["task"] if "task" in file.names else []))

    def trajectory(self, row: SourceRow, part: int, dice: random.Random) -> Trajectory:
        """Think and draw in turn, and answer."""
        thoughts, pictures = _there(row, *_THOUGHTS), _there(row, *_PICTURES)
        steps: list[Step] = []
        for number, picture in pictures.items():
            before = thoughts.pop(number, None)
            steps += _drawn(row, "" if before is None else row.text(before), picture)
        last = "\n".join(row.text(name) for name in thoughts.values())
        if min(thoughts, default=sys.maxsize) <= max(pictures, default=-1):
            raise row.bad(
                "no image after a thought", f"nothing is drawn after {', '.join(thoughts.values())}"
            )
        return Trajectory(
            prompt=row.text("question"),
            inputs=refs([row.image(name) for name in _there(row, "problem_image").values()]),
            task=row.maybe_text("task") or "interleaved",
            steps=_ended(row, steps, last, row.text("answer")),
        )


_THOUGHTS: Final = ("resoning_thought", "reasoning_thought")
_PICTURES: Final = ("reasoning_image", "resoning_image")


def _there(row: SourceRow, *stems: str) -> dict[int, str]:
    """Numbered fields in which something stands."""
    names = list(row.data) if isinstance(row.data, Mapping) else []
    return {number: n for number, n in numbered(names, *stems).items() if row.value(n)}


def _drawn(row: SourceRow, text: str, picture: str) -> list[Step]:
    if not text:
        raise row.bad("no thought before an image", f"nothing is said before {picture!r}")
    return [thought(text), Sketch(image=ImageRef(png=row.image(picture)))]


def _ended(row: SourceRow, steps: Sequence[Step], last: str, answer: str) -> tuple[Step, ...]:
    if not steps:
        raise row.bad("missing image", "nothing is drawn on the way to the answer")
    said = f"{within_tags(last)}\n{answer}" if last else answer
    return (*steps, Answer(text=said), Stop())
