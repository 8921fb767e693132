"""Triples in a file of JSON lines, whatever their fields are called."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from data_pipelines.refine.triples import BadTripleError, Triple, reflection_of
from staged import images, strict_json
from staged.data_urls import from_base64
from staged.lines import Line, read_lines

FIELDS: Final = ("prompt", "good", "bad", "reflection", "subset")
"""What a triple has, by the names that a field map uses; the first two are needed."""
_MAX_LINE_BYTES: Final = 4 * images.MAX_IMAGE_BYTES


class JsonLines:
    """The lines of a file, a triple each.

    Images are named by their path below the file's folder, or stand there as data URLs.

    Args:
        path: The file.
        fields: Name of a triple's part -> where it is in a line: keys and list places with dots
            between them, such as `images.0.file`. Parts that are not named are under their own
            names.

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
        self._folder = path.parent.resolve()
        self._path = path
        self._lines = _starts(path)

    def __len__(self) -> int:
        """Return how many lines there are."""
        return len(self._lines)

    def prompt(self, number: int) -> str:
        """Read the prompt of a line."""
        line, data = self._parsed(number)
        return self._text(line, data, "prompt")

    def triple(self, number: int) -> Triple:
        """Read a line and its images."""
        line, data = self._parsed(number)
        bad = self._value(data, "bad")
        reflection, subset = self._value(data, "reflection"), self._value(data, "subset")
        return Triple(
            prompt=self._text(line, data, "prompt"),
            good=self._image(line, self._text(line, data, "good"), "good"),
            bad=None if bad is None else self._image(line, bad, "bad"),
            reflection=reflection_of(reflection if isinstance(reflection, str) else None),
            subset=subset if isinstance(subset, str) else None,
            place=line.place,
        )

    def _parsed(self, number: int) -> tuple[Line, Any]:
        start, count = self._lines[number]
        with self._path.open("rb") as file:
            file.seek(start)
            content = file.readline(_MAX_LINE_BYTES)
        line = Line(content.rstrip(b"\r\n"), f"{self._path}:{count}")
        try:
            return line, strict_json.loads(line.text(), place=line.place, max_bytes=_MAX_LINE_BYTES)
        except ValueError as error:
            raise BadTripleError("bad line", line.place, str(error)) from None

    def _value(self, data: Any, name: str) -> Any:
        for part in self._fields[name].split("."):
            if isinstance(data, dict):
                data = data.get(part)
            elif isinstance(data, list) and part.isdigit() and int(part) < len(data):
                data = data[int(part)]
            else:
                return None
        return data

    def _text(self, line: Line, data: Any, name: str) -> str:
        value = self._value(data, name)
        if not isinstance(value, str) or not value.strip():
            said = f"no text at {self._fields[name]!r}; name the right field (fields.{name})"
            raise BadTripleError(f"missing {name}", line.place, said)
        return value.strip()

    def _image(self, line: Line, named: Any, name: str) -> bytes:
        if not isinstance(named, str):
            raise BadTripleError("missing image", line.place, f"{name}: {named!r:.60} is no path")
        try:
            if named.startswith("data:"):
                return from_base64(named)
            path = (self._folder / named).resolve()
            if not path.is_relative_to(self._folder):
                raise ValueError(f"{named!r:.200} leads out of {self._folder}")
            return images.read_file(path)
        except ValueError as error:
            raise BadTripleError("bad image", line.place, f"{name}: {error}") from None


def _starts(path: Path) -> list[tuple[int, int]]:
    """Where each line that is not empty begins, and its number from 1."""
    numbers = [
        int(line.place.rpartition(":")[2]) for line in read_lines(path, max_bytes=_MAX_LINE_BYTES)
    ]
    starts: list[tuple[int, int]] = []
    wanted = iter(numbers)
    following = next(wanted, None)
    position = 0
    with path.open("rb") as file:
        for number, content in enumerate(file, start=1):
            if number == following:
                mark = 3 if number == 1 and content.startswith(b"\xef\xbb\xbf") else 0
                starts.append((position + mark, number))
                following = next(wanted, None)
            position += len(content)
    return starts
