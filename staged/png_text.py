"""Text in a PNG file, beside the picture: written, found again, and not trusted.

An `iTXt` chunk with a keyword (PNG specification, third edition, 11.3.3.4). Only what is stored as
it is gets read: a compressed text could be of any length.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_KIND: Final = b"iTXt"
_HEADER_END: Final = len(_SIGNATURE) + 25
"""A header, which must come first, has 13 bytes, and 12 around them."""
_MAX_CHUNKS: Final = 100_000


def with_png_text(png: bytes, keyword: str, text: str) -> bytes:
    """Put a text into a PNG, in place of one with the same keyword; the picture stays as it is.

    Args:
        png: A whole file.
        keyword: 1 to 79 characters of ASCII.
        text: Of any length.

    Raises:
        ValueError: The file is no PNG.
    """
    body = _opening(keyword) + b"\0\0\0\0" + text.encode()
    framed = _KIND + body
    chunk = struct.pack(">I", len(body)) + framed + struct.pack(">I", zlib.crc32(framed))
    kept, done = [png[:_HEADER_END], chunk], _HEADER_END
    for start, end in _texts(png, keyword):
        kept.append(png[done:start])
        done = end
    return b"".join([*kept, png[done:]])


def png_text(data: bytes, keyword: str, *, max_bytes: int) -> str | None:
    """Return the text under a keyword; None where the file has none.

    Args:
        data: A PNG, or anything else, which has none.
        keyword: Of the text.
        max_bytes: Longest text that is read.

    Raises:
        ValueError: The text is damaged, compressed, too long, or no UTF-8; or the file is cut off
            before it.
    """
    if not data.startswith(_SIGNATURE):
        return None
    for start, end in _texts(data, keyword):
        framed, [crc] = data[start + 4 : end - 4], struct.unpack(">I", data[end - 4 : end])
        if zlib.crc32(framed) != crc:
            raise ValueError(f"its text {keyword!r} is damaged")
        rest = framed[len(_KIND) + len(_opening(keyword)) :]
        if rest[:1] != b"\0":
            raise ValueError(f"its text {keyword!r} is compressed, which is not read")
        # Compression method, language and translated keyword stand before the text.
        _, found, text = rest[2:].partition(b"\0")[2].partition(b"\0")
        if not found or len(text) > max_bytes:
            raise ValueError(f"its text {keyword!r} exceeds {max_bytes} bytes, or is none")
        try:
            return text.decode()
        except UnicodeDecodeError:
            raise ValueError(f"its text {keyword!r} is no UTF-8") from None
    return None


def _opening(keyword: str) -> bytes:
    assert 0 < len(keyword) < 80, "the format's limit"
    return keyword.encode("ascii") + b"\0"


def _texts(png: bytes, keyword: str) -> Iterator[tuple[int, int]]:
    """Where chunks with a keyword begin and end."""
    if not png.startswith(_SIGNATURE) or png[12:16] != b"IHDR":
        raise ValueError("not a PNG image")
    place, opening = len(_SIGNATURE), _opening(keyword)
    for _ in range(_MAX_CHUNKS):
        if place == len(png):
            return
        head = png[place : place + 8]
        end = place + 12 + int.from_bytes(head[:4])
        if len(head) < 8 or end > len(png):
            raise ValueError("the PNG is cut off")
        if head[4:] == _KIND and png.startswith(opening, place + 8):
            yield place, end
        if head[4:] == b"IEND":
            return  # what follows is no part of it
        place = end
    raise ValueError(f"the PNG has more than {_MAX_CHUNKS} chunks")
