"""Files of JSON lines that fill up in any order, survive a kill, and end in one order.

A line has a key: what must be the same for it to stand. Processes that share the work write files
of their own beside the one that is wanted; who finds that no line is missing any more brings them
together, so equal work leaves equal files, however many did it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from staged import strict_json
from staged.jobs import locks
from staged.jobs.files import write_whole
from staged.jobs.progress import Progress
from staged.jobs.rank import Rank
from staged.lines import read_lines

Key = tuple[str, ...]
Keep = Callable[[int, Mapping[str, Any]], None]
"""Takes the place of a line, from 0, and its record."""
_MAX_LINE_BYTES = 16 * 1024 * 1024


class KeptLine(NamedTuple):
    """What a line says of itself.

    Attributes:
        key: What must be the same for it to stand.
        failed: Whether what it is about is to be tried again.
    """

    key: Key
    failed: bool


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What was done.

    Attributes:
        lines: All lines in order of their places; None while those of other processes are missing.
        new: Lines made now.
        kept: Lines that were there.
    """

    lines: tuple[bytes, ...] | None
    new: int
    kept: int


def part_of(path: Path, rank: Rank) -> Path:
    """Return the file that a process writes."""
    if rank.world_size == 1:
        return path
    return path.with_name(f"{path.name}.{rank.number}-of-{rank.world_size}")


def fill(
    path: Path,
    keys: Sequence[Key],
    read: Callable[[bytes, str], KeptLine],
    produce: Callable[[list[int], Keep], None],
    *,
    rank: Rank,
    label: str = "images",
) -> Filled:
    """Make the lines that are missing, each on disk as soon as it comes.

    Args:
        path: The file; in the end it holds a line for each key, in their order.
        keys: Of all lines, distinct.
        read: Checks a line, of which it gets the place for messages.
        produce: Gets the places of the lines to make, and what to call with each.
        rank: Which of the lines are this process's.
        label: What a line is about, for the progress that is shown.

    Raises:
        ValueError: `read` refuses a line that is there, or another process has the same rank.
        OSError: a file cannot be read or written.
    """
    part = part_of(path, rank)
    part.parent.mkdir(parents=True, exist_ok=True)
    busy = f"another process is writing {part}; wait for it, or choose another --out"
    with locks.alone(part.with_name(f".{part.name}.lock"), busy):
        found = _gather(path, keys, read)
        mine = rank.share(range(len(keys)))
        lines = {i: found[i][0] for i in mine if i in found and not found[i][1].failed}
        missing = [i for i in mine if i not in lines]
        kept = len(mine) - len(missing)
        progress = Progress(rank.label(label), len(mine), done=kept)
        write_whole(part, _content(lines))
        with part.open("ab") as file:

            def keep(place: int, record: Mapping[str, Any]) -> None:
                lines[place] = strict_json.dumps(record).encode()
                file.write(lines[place] + b"\n")
                file.flush()
                progress.advance()

            produce(missing, keep)
        write_whole(part, _content(lines))
        if rank.world_size > 1:
            lines = {i: line for i, (line, _) in _gather(path, keys, read).items()}
            if len(lines) < len(keys):
                return Filled(lines=None, new=len(missing), kept=kept)
            write_whole(path, _content(lines))
        return Filled(lines=tuple(lines[i] for i in sorted(lines)), new=len(missing), kept=kept)


def _gather(
    path: Path, keys: Sequence[Key], read: Callable[[bytes, str], KeptLine]
) -> dict[int, tuple[bytes, KeptLine]]:
    """Find the line of each key, whoever wrote it; a failed one where there is no other."""
    by_key: dict[Key, tuple[bytes, KeptLine]] = {}
    for line, place in lines_of(path):
        found = read(line, place)
        if found.key not in by_key or not found.failed:
            by_key[found.key] = line, found
    return {index: by_key[key] for index, key in enumerate(keys) if key in by_key}


def _parts(path: Path) -> list[Path]:
    """List what processes wrote that shared the work, now or once."""
    pattern = re.compile(re.escape(path.name) + r"\.\d+-of-\d+")
    there = path.parent.iterdir() if path.parent.is_dir() else ()
    return sorted(other for other in there if pattern.fullmatch(other.name))


def lines_of(path: Path) -> Iterator[tuple[bytes, str]]:
    """Read the whole lines of a file and of its parts, whoever wrote them, each with its place.

    An interrupted write leaves half a line at the end.

    Raises:
        ValueError: a line is too long.
    """
    for part in filter(Path.is_file, (path, *_parts(path))):
        yield from read_lines(part, max_bytes=_MAX_LINE_BYTES, whole=True)


def _content(lines: Mapping[int, bytes]) -> bytes:
    return b"".join(lines[place] + b"\n" for place in sorted(lines))
