"""BAGEL's own parquet files, as its training guide has them: images of captions, and edits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from data_pipelines.imports.form import OneSample, as_list, drawn, refs
from data_pipelines.rows import SourceRow
from staged import strict_json
from staged.tables import ParquetFile
from staged.trajectory import Trajectory

_MAX_CAPTIONS_BYTES: Final = 2**20


class BagelTextToImage(OneSample):
    """`image`: encoded bytes; `captions`: JSON text, name -> caption, of which chance takes one."""

    def columns(self, file: ParquetFile) -> Sequence[str]:
        """Both."""
        names = ("image", "captions")
        file.require(names)
        return names

    def trajectory(self, row: SourceRow, part: int, dice: random.Random) -> Trajectory:
        """Draw the image of a caption."""
        text = row.text("captions")
        try:
            found = strict_json.loads(text, place="captions", max_bytes=_MAX_CAPTIONS_BYTES)
        except ValueError as error:
            raise row.bad("bad captions", str(error)) from None
        if not isinstance(found, dict):
            raise row.bad("bad captions", f"no object of captions but {text!r:.60}")
        captions = _texts(found.values())
        if not captions:
            raise row.bad("missing captions", f"no text in {text!r:.60}")
        return Trajectory(
            prompt=dice.choice(captions), task="one_shot", steps=drawn(row.image("image"))
        )


class BagelEditing:
    """`image_list`: pictures, each but the first an edit of the one before it; `instruction_list`.

    For each edit it has its wordings, of which chance takes one. Each edit is a sample.
    """

    counting: Sequence[str] = ("instruction_list",)

    def columns(self, file: ParquetFile) -> Sequence[str]:
        """Both."""
        names = ("image_list", "instruction_list")
        file.require(names)
        return names

    def parts(self, row: SourceRow) -> int:
        """As many as instructions."""
        return max(1, len(row.items("instruction_list")))

    def trajectory(self, row: SourceRow, part: int, dice: random.Random) -> Trajectory:
        """Draw one edit of the picture before it."""
        pictures, instructions = row.items("image_list"), row.items("instruction_list")
        if len(pictures) != len(instructions) + 1 or not instructions:
            raise row.bad(
                "other number of instructions",
                f"{len(instructions)} instructions for {len(pictures)} images; it takes one less",
            )
        wordings = _texts(as_list(instructions[part]))
        if not wordings:
            raise row.bad("missing instruction", f"no text at 'instruction_list.{part}'")
        before = row.image_of(pictures[part], f"image_list.{part}")
        after = row.image_of(pictures[part + 1], f"image_list.{part + 1}")
        return Trajectory(
            prompt=dice.choice(wordings), inputs=refs([before]), task="edit", steps=drawn(after)
        )


def _texts(values: Any) -> list[str]:
    return [value.strip() for value in values if isinstance(value, str) and value.strip()]
