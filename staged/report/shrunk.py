"""Images no larger than they are shown: a page of full-size sketches would be hundreds of MB."""

from __future__ import annotations

import io

from PIL import Image

from staged import images

_QUALITY = 82


def shrunk(data: bytes, max_side_px: int, place: str = "image") -> bytes:
    """Shrink an encoded image, as WebP; one that is small enough stays as it is.

    Args:
        data: PNG, WebP or JPEG.
        max_side_px: Longest side afterwards.
        place: What an error names.

    Raises:
        ValueError: it is no image.
    """
    try:
        _, width, height = images.probe(data)
        if max(width, height) <= max_side_px:
            return data
        smaller = Image.fromarray(images.decode(data))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    smaller.thumbnail((max_side_px, max_side_px))
    buffer = io.BytesIO()
    smaller.save(buffer, format="WEBP", quality=_QUALITY)
    return buffer.getvalue()
