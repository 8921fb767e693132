"""Images between bytes and arrays, bounded before anything is decoded.

Everywhere in the project an image is either encoded bytes (in trajectories and on disk) or a
uint8 array (h, w, 3), RGB, 0-255 (where it is drawn or looked at).
"""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

EXTENSIONS = {"PNG": "png", "WEBP": "webp", "JPEG": "jpg"}
"""Pillow's format name -> the file extension the project uses for it."""
MAX_PIXELS = 4096 * 4096
MAX_IMAGE_BYTES = 64 * 2**20

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode losslessly.

    Args:
        pixels: (h, w, 3) uint8 RGB.

    Raises:
        ValueError: another shape or dtype, or more than `MAX_PIXELS` pixels.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(
            f"image of shape {pixels.shape} and dtype {pixels.dtype}: expected (h, w, 3) uint8"
        )
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise ValueError(f"image of shape {pixels.shape} exceeds {MAX_PIXELS} pixels")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def probe(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[str, int, int]:
    """Read the header only: (extension, width, height).

    Raises:
        ValueError: not PNG, WebP or JPEG, too many bytes, or too many pixels.
    """
    with _open(data, max_pixels) as image:
        return EXTENSIONS[str(image.format)], image.width, image.height


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode PNG, WebP or JPEG to (h, w, 3) uint8 RGB.

    Transparent images are laid on white, as BAGEL does with its inputs. Of an animation, the
    first frame.

    Raises:
        ValueError: not such an image, truncated, too many bytes, or too many pixels.
    """
    with _open(data, max_pixels) as image:
        try:
            if image.has_transparency_data:
                layer = image.convert("RGBA")
                white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
                return np.asarray(Image.alpha_composite(white, layer).convert("RGB"))
            return np.asarray(image.convert("RGB"))
        except _BROKEN as error:
            raise ValueError(f"image does not decode: {error}") from None


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if len(data) > MAX_IMAGE_BYTES:
        raise ValueError(f"image of {len(data)} bytes exceeds the limit of {MAX_IMAGE_BYTES}")
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(EXTENSIONS))
    except UnidentifiedImageError:
        raise ValueError("not a PNG, WebP or JPEG image") from None
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise ValueError(f"not a sound PNG, WebP or JPEG image: {error}") from None
    if image.width * image.height > max_pixels:
        raise ValueError(
            f"image of {image.width} x {image.height} exceeds the limit of {max_pixels} pixels"
        )
    return image
