"""Triples in a file of JSON lines, whatever their fields are called."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from data_pipelines.refine.triples import Triple, reflection_of
from data_pipelines.rows import JsonRows, SourceRow

FIELDS: Final = ("prompt", "good", "bad", "reflection", "subset")
"""What a triple has, by the names that a field map uses; the first two are needed."""


class JsonLines:
    """The lines of a file, a triple each.

    Images are named by their path below the file's folder, or stand there as data URLs.

    Args:
        path: The file.
        fields: Name of a triple's part -> where it is in a line; see `SourceRow`. Parts that are
            not named are under their own names.

    Raises:
        ValueError: the map has a part that triples do not have.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path, fields: Mapping[str, str] | None = None) -> None:
        """Count the lines; they are parsed when their turn comes."""
        unknown = sorted(set(fields or ()) - set(FIELDS))
        if unknown:
            raise ValueError(
                f"fields: a triple has no {', '.join(unknown)}; name some of {', '.join(FIELDS)}"
            )
        self._fields = {name: name for name in FIELDS} | dict(fields or {})
        self._rows = JsonRows(path)

    def __len__(self) -> int:
        """Return how many lines there are."""
        return len(self._rows)

    def prompt(self, number: int) -> str:
        """Read the prompt of a line."""
        return self._text(self._rows[number], "prompt")

    def triple(self, number: int) -> Triple:
        """Read a line and its images."""
        row = self._rows[number]
        bad = row.value(self._fields["bad"])
        reflection = row.value(self._fields["reflection"])
        subset = row.value(self._fields["subset"])
        return Triple(
            prompt=self._text(row, "prompt"),
            good=row.image_of(self._text(row, "good"), "good"),
            bad=None if bad is None else row.image_of(bad, "bad"),
            reflection=reflection_of(reflection if isinstance(reflection, str) else None),
            subset=subset if isinstance(subset, str) else None,
            place=row.place,
        )

    def _text(self, row: SourceRow, name: str) -> str:
        hint = f"; name the right field (fields.{name})"
        return row.text(self._fields[name], name, hint=hint)
