"""Images in base64, as services send them and pages hold them.

What comes in is written in many ways: alone or as a data URL, in lines, in the alphabet for URLs,
without its padding. This is the only place that reads and writes it.
"""

import base64
import binascii
from typing import Final
from urllib.parse import unquote

from staged import images

_TYPES: Final = {"png": "image/png", "webp": "image/webp", "jpg": "image/jpeg"}
MAX_CHARS: Final = images.MAX_IMAGE_BYTES * 2
"""Base64 makes four characters of three bytes; line ends come on top."""


def to_data_url(image: bytes) -> str:
    """Write an image as a URL that holds it.

    Args:
        image: PNG, WebP or JPEG.

    Raises:
        ValueError: it is none of them.
    """
    kind = _TYPES[images.probe(image)[0]]
    return f"data:{kind};base64,{to_base64(image)}"


def to_base64(image: bytes) -> str:
    """Write the bytes of an image, whatever they are, in base64 with padding on one line."""
    return base64.b64encode(image).decode("ascii")


def from_base64(text: str) -> bytes:
    """Read the bytes of an image; nothing is decoded further.

    Args:
        text: Base64 in either alphabet, with or without padding and line ends, or a data URL of it.
            What type the URL states counts for nothing: the bytes say what they are.

    Raises:
        ValueError: it is longer than the largest image, empty, or no base64.
    """
    if len(text) > MAX_CHARS:
        raise ValueError(f"base64 of {len(text)} characters exceeds the limit of {MAX_CHARS}")
    text = text.strip()
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise ValueError(f"data URL {head!r:.60}: expected `data:image/…;base64,…`")
        text = unquote(text)
    text = "".join(text.split()).translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    if not text:
        raise ValueError("empty base64")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64: {error}") from None
