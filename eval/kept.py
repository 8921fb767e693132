"""Files of JSON lines that fill up in any order, survive a kill, and end in one order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from staged import strict_json
from staged.shards.folder import write_whole

Keep = Callable[[int, Mapping[str, Any]], None]
"""Takes the place of a line, from 0, and its record."""


def lines_there(path: Path) -> Iterator[tuple[bytes, str]]:
    """Read whole lines, each with its place for messages; no file has none.

    An interrupted write leaves half a line at the end, which is passed over.
    """
    if path.is_file():
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
            yield line, f"{path}:{number}"


def fill(path: Path, there: Mapping[int, bytes], produce: Callable[[Keep], None]) -> list[bytes]:
    """Write the lines that are there, then those that `produce` makes, each as soon as it comes.

    Args:
        path: The file; made anew.
        there: Lines that are finished, by place, without their line ends.
        produce: Makes the others and calls what it is given with each.

    Returns:
        All lines in order of their places, as the file has them in the end: equal runs leave
        equal files, whatever came first.

    Raises:
        OSError: the file cannot be written.
    """
    lines = dict(there)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _content(lines))
    with path.open("ab") as file:

        def keep(place: int, record: Mapping[str, Any]) -> None:
            lines[place] = strict_json.dumps(record).encode()
            file.write(lines[place] + b"\n")
            file.flush()

        produce(keep)
    write_whole(path, _content(lines))
    return [lines[place] for place in sorted(lines)]


def _content(lines: Mapping[int, bytes]) -> bytes:
    return b"".join(lines[place] + b"\n" for place in sorted(lines))
