"""Images between bytes and arrays, bounded before anything is decoded.

Everywhere in the project an image is either encoded bytes (in trajectories and on disk) or a
uint8 array (h, w, 3), RGB, 0-255 (where it is drawn or looked at). This is the only place that
opens an encoded image, so a photograph is upright, and transparency white, for whoever looks.
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

EXTENSIONS = {"PNG": "png", "WEBP": "webp", "JPEG": "jpg", "MPO": "jpg"}
"""Pillow's format name -> the file extension the project uses for it. An MPO, as many cameras and
telephones write it, is a JPEG with further pictures behind it."""
SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
"""How the names of such files end, in lower case."""
MAX_PIXELS = 8192 * 8192
"""Beyond the largest photographs of common cameras (61 megapixels)."""
MAX_IMAGE_BYTES = 64 * 2**20
BACKGROUND = (255, 255, 255)
"""What shows through a transparent image: white, as where BAGEL reads its inputs."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each of EXIF's orientations."""
_FORMATS = ("PNG", "WEBP", "JPEG")
_WANTED = "not a PNG, WebP or JPEG image"
_OTHERS = (
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"%PDF", "a PDF document"),
    (b"version https://git-lfs", "the pointer of a Git LFS file that was not fetched"),
)
"""What people give instead, by its first bytes."""


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
    """Read the header only: (extension, width, height), as `decode` turns the image.

    Raises:
        ValueError: not PNG, WebP or JPEG, too many bytes, or too many pixels.
    """
    with _opened(data, max_pixels) as image:
        width, height = image.size
        if _orientation(image) >= 5:  # a quarter turn
            width, height = height, width
        return EXTENSIONS[str(image.format)], width, height


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode PNG, WebP or JPEG to (h, w, 3) uint8 RGB.

    Turned upright where a camera says how it was held (EXIF). Transparent images are laid on
    `BACKGROUND`. Of 16 bits the upper 8 are kept; of an animation or an MPO, the first picture.
    Colour profiles are left aside, as BAGEL does; CMYK becomes RGB by Pillow's plain rule.

    Raises:
        ValueError: not such an image, truncated, too many bytes, or too many pixels.
    """
    with _opened(data, max_pixels) as image:
        # Before the pixels: what a PNG says behind them is not known to `probe`.
        orientation = _orientation(image)
        image.load()
        image = _rgb(image)
        if orientation in _TURNS:
            image = image.transpose(_TURNS[orientation])
        return np.asarray(image)


def is_plain(data: bytes) -> bool:
    """Whether every program shows these bytes as `decode` does.

    False for what is turned, transparent, animated, CMYK, of 16 bits, or followed by more pictures:
    who sends an image to others sends it decoded and encoded again.

    Raises:
        ValueError: as `probe`.
    """
    with _opened(data, MAX_PIXELS) as image:
        return (
            image.mode in ("L", "RGB")
            and not image.has_transparency_data
            and _orientation(image) == 1
            and getattr(image, "n_frames", 1) == 1
        )


def read_file(path: Path) -> bytes:
    """Read the bytes of an image; nothing is decoded.

    Raises:
        ValueError: it cannot be read, or is too large; names the file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    if len(data) > MAX_IMAGE_BYTES:
        raise ValueError(f"{path}: exceeds the limit of {MAX_IMAGE_BYTES} bytes")
    return data


def decode_file(path: Path) -> NDArray[np.uint8]:
    """Decode a file; see `decode`.

    Raises:
        ValueError: it cannot be read, or is no image; names the file.
    """
    data = read_file(path)
    try:
        return decode(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


@contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Open bounded bytes; whatever is wrong with them, here or in the block, is a ValueError."""
    if len(data) > MAX_IMAGE_BYTES:
        raise ValueError(f"image of {len(data)} bytes exceeds the limit of {MAX_IMAGE_BYTES}")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"{_WANTED}{_instead(data)}") from None
    except Exception as error:
        raise ValueError(f"not a sound PNG, WebP or JPEG image: {_said(error)}") from None
    with image:
        if math.prod(image.size) > max_pixels:
            raise ValueError(
                f"image of {image.width} x {image.height} exceeds the limit of {max_pixels} pixels"
            )
        try:
            yield image
        # Decoders of damaged bytes raise whatever they run into: KeyError, struct.error,
        # SyntaxError, OverflowError, MemoryError were all seen.
        except Exception as error:
            raise ValueError(f"image does not decode: {_said(error)}") from None


def _orientation(image: Image.Image) -> int:
    """How a camera says that the picture is to be turned: EXIF's 1 to 8, 1 for not at all."""
    # For a PNG Pillow would decode all pixels in search of what may stand behind them.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # notes that are damaged say nothing; the picture is there
        return 1
    return value if type(value) is int and 1 <= value <= 8 else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _upper_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    ground = Image.new("RGB", layer.size, BACKGROUND)
    ground.paste(layer, mask=layer.getchannel("A"))
    return ground


def _upper_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits with the upper 8 of them; Pillow alone would cut off all above."""
    levels = np.asarray(image)
    grey = Image.fromarray((levels >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is None:
        return grey
    opaque = Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, opaque))


def _instead(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "; it is a HEIC, AVIF or video file: convert it"
    kinds = (kind for first, kind in _OTHERS if data.startswith(first))
    kind = "empty" if not data else next(kinds, None)
    return f"; it is {kind}" if kind else ""


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
