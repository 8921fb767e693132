"""Rows of any schema whose fields somebody names: captions, editing pairs, answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Final

from data_pipelines.imports.form import OneSample, answered, as_list, drawn, refs, thought
from data_pipelines.rows import SourceRow
from staged.tables import ParquetFile
from staged.trajectory import Answer, Step, Stop, Trajectory

FIELDS: Final = ("prompt", "image", "inputs", "answer", "thought", "system", "task")
"""What a sample may have, by the names that a field map uses."""


class MappedRows(OneSample):
    """A prompt, and an image that is drawn for it, an answer to it, or an edit of its inputs.

    Args:
        fields: Name of a part of a sample -> where a row has it; see `SourceRow`. Parts that are
            not named are under their own names, if they are there.

    Raises:
        ValueError: The map has a part that samples do not have.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        """Keep the map."""
        unknown = sorted(set(fields) - set(FIELDS))
        if unknown:
            raise ValueError(
                f"fields: a sample has no {', '.join(unknown)}; name some of {', '.join(FIELDS)}"
            )
        self._given = dict(fields)
        self._fields = {name: name for name in FIELDS} | self._given

    def columns(self, file: ParquetFile) -> Sequence[str]:
        """Those that are named, and those that need no name."""
        found = []
        for part, field in self._fields.items():
            name = field if field in file.names else field.partition(".")[0]
            if part in self._given or part == "prompt":
                file.require([name])
            if name in file.names:
                found.append(name)
        return tuple(dict.fromkeys(found))

    def trajectory(self, row: SourceRow, part: int, dice: random.Random) -> Trajectory:
        """Draw, or answer."""
        fields = self._fields
        thinks = row.maybe_text(fields["thought"])
        before: tuple[Step, ...] = () if thinks is None else (thought(thinks),)
        answer = row.maybe_text(fields["answer"])
        steps: tuple[Step, ...]
        if row.value(fields["image"]) is not None:
            steps = drawn(row.image(fields["image"], "image"), *before)
            if answer is not None:
                if not before:
                    raise row.bad("both", "an image and an answer need a thought before them")
                steps = (*steps[:-1], Answer(text=answer), Stop(loss=False))
        elif answer is not None:
            said = answer if thinks is None else thought(thinks, answer).text
            steps = answered(said)
        else:
            hint = "; name the right field (fields.image or fields.answer)"
            raise row.bad("missing image", f"neither {fields['image']!r} nor an answer{hint}")
        inputs = [row.image_of(value, "inputs") for value in as_list(row.value(fields["inputs"]))]
        usual = "understanding" if answer and not thinks else "edit" if inputs else "one_shot"
        return Trajectory(
            prompt=row.text(
                fields["prompt"], "prompt", hint="; name the right field (fields.prompt)"
            ),
            system=row.maybe_text(fields["system"]),
            inputs=refs(inputs),
            task=row.maybe_text(fields["task"]) or usual,
            steps=steps,
        )
