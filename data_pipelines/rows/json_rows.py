"""Rows of a file of JSON: an object on each line, or one list of objects."""

from pathlib import Path
from typing import Any, Final

from data_pipelines.rows.row import SourceRow
from staged import images, strict_json
from staged.lines import Line, read_lines, without_mark
from staged.tables import BadRowError

_MAX_LINE_BYTES: Final = 4 * images.MAX_IMAGE_BYTES
_MAX_LIST_BYTES: Final = 512 * 2**20


class JsonRows:
    """The lines of a file, or the items of a list.

    Args:
        path: A file of lines, or of one list.
        folder: Of images that are named by paths; the file's by default.

    Raises:
        ValueError: A line is too long, or the list is no JSON or too large.
        OSError: The file cannot be read.
    """

    def __init__(self, path: Path, folder: Path | None = None) -> None:
        """Count the lines; they are parsed when their turn comes."""
        self._path, self._folder = path, folder or path.parent
        self._list: list[Any] | None = None
        self._lines: list[tuple[int, int]] = []
        with path.open("rb") as file:
            is_list = without_mark(file.read(1024), str(path)).lstrip().startswith(b"[")
        if is_list:
            self._list = strict_json.read(path, max_bytes=_MAX_LIST_BYTES)
        else:
            self._lines = _starts(path)

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self._lines) if self._list is None else len(self._list)

    def __getitem__(self, number: int) -> SourceRow:
        """Read one.

        Raises:
            BadRowError: It is no JSON.
        """
        if self._list is not None:
            return SourceRow(self._list[number], f"{self._path}: item {number + 1}", self._folder)
        start, count = self._lines[number]
        with self._path.open("rb") as file:
            file.seek(start)
            content = file.readline(_MAX_LINE_BYTES)
        line = Line(content.rstrip(b"\r\n"), f"{self._path}:{count}")
        try:
            data = strict_json.loads(line.text(), place=line.place, max_bytes=_MAX_LINE_BYTES)
        except ValueError as error:
            raise BadRowError("bad line", line.place, str(error)) from None
        return SourceRow(data, line.place, self._folder)


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
