r"""Lines of text files, whoever wrote them: bounded, and only `\n` ends one.

`str.splitlines`, and files opened as text, also end lines where a prompt or a JSON string may go
on: at U+2028, U+0085, `\x0b`, a lone `\r`. Windows' programs end lines with `\r\n` and begin files
with a byte-order mark; neither belongs to a line here.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

MAX_LINE_BYTES = 2**20
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SLACK = 8
"""Room for a byte-order mark and the line's end."""


class Line(NamedTuple):
    """A line that is not empty.

    Attributes:
        content: Without its end.
        place: `FILE:LINE`, for messages.
    """

    content: bytes
    place: str

    def text(self) -> str:
        """Decode it.

        Raises:
            ValueError: not UTF-8; names the place.
        """
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.place}: no UTF-8 text: {error}; convert the file") from None


def read_bounded(path: Path, *, max_bytes: int, what: str) -> bytes:
    """Read a file whole that cannot be larger, being what it should be.

    Args:
        path: The file.
        max_bytes: Its largest size.
        what: It should be, for the message.

    Raises:
        ValueError: it is larger.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"{path}: more than {max_bytes} bytes; not {what}")
    return content


def read_lines(
    path: Path, *, max_bytes: int = MAX_LINE_BYTES, whole: bool = False
) -> Iterator[Line]:
    """Read a file line by line; empty lines are passed over, and counted.

    Args:
        path: The file.
        max_bytes: Longest line.
        whole: Leave out a last line without an end: of a write that was cut off.

    Raises:
        ValueError: a line is too long, or the file is UTF-16; names the place.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        yield from _lines(file, str(path), max_bytes, whole)


def split_lines(
    content: bytes, place: str, *, max_bytes: int = MAX_LINE_BYTES, whole: bool = False
) -> Iterator[Line]:
    """Read the lines of a file's content; see `read_lines`."""
    return _lines(io.BytesIO(content), place, max_bytes, whole)


def _lines(file: BinaryIO, place: str, max_bytes: int, whole: bool) -> Iterator[Line]:
    number = 0
    while content := file.readline(max_bytes + _SLACK):
        number += 1
        here = f"{place}:{number}"
        if number == 1:
            content = without_mark(content, place)
        ended = content.endswith(b"\n")
        content = content.removesuffix(b"\n").removesuffix(b"\r")
        if len(content) > max_bytes:
            raise ValueError(f"{here}: a line of more than {max_bytes} bytes")
        if content.strip() and (ended or not whole):
            yield Line(content, here)


def without_mark(content: bytes, place: str) -> bytes:
    """Drop the byte-order mark that a UTF-8 file may begin with.

    Raises:
        ValueError: the mark is that of UTF-16.
    """
    if content.startswith(_UTF_16):
        raise ValueError(
            f"{place}: UTF-16 text, as PowerShell's `>` writes it; save the file as UTF-8"
        )
    return content.removeprefix(codecs.BOM_UTF8)
