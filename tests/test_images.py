"""Pictures as cameras, scanners and other programs write them, through the one reader."""

import io
import random
import struct
from pathlib import Path
from typing import Any
from zlib import compress, crc32

import numpy as np
import pytest
from PIL import Image, ImageOps

from staged import images
from staged.backends.lmm.wire import data_url

COLORS = np.array([[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 0)]], np.uint8)
SCENE = np.kron(COLORS, np.ones((24, 40, 1), np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def near(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal up to what a JPEG changes."""
    return found.shape == expected.shape and np.abs(found.astype(int) - expected).mean() < 20


def test_an_mpo_of_a_camera_is_its_first_picture() -> None:
    first, second = Image.fromarray(SCENE), Image.fromarray(255 - SCENE)
    data = encoded(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert images.probe(data) == ("jpg", 80, 48)
    assert near(images.decode(data), SCENE)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_however_the_camera_was_held(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(SCENE), kind, exif=exif, quality=95)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(images.decode(data), np.asarray(upright))
    assert images.probe(data)[1:] == upright.size


def test_notes_of_a_camera_that_are_damaged_leave_the_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(SCENE), "JPEG", exif=b"Exif\0\0" + bytes(range(40)))
    assert images.decode(data).shape == SCENE.shape
    exif[0x0112] = 77
    data = encoded(Image.fromarray(SCENE), "JPEG", exif=exif)
    assert images.decode(data).shape == SCENE.shape
    # The words that say how to turn it, behind the pixels, where only a full read finds them.
    png = encoded(Image.fromarray(SCENE), "PNG", exif=exif)
    start = png.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", png[start : start + 4])[0]
    late = png[:start] + png[end:-12] + png[start:end] + png[-12:]
    assert images.probe(late)[1:] == images.decode(late).shape[1::-1] == (80, 48)


def test_grey_of_16_bits_keeps_its_upper_8() -> None:
    levels = np.array([[0, 0x1234, 0x80FF, 0xFFFF]], np.uint16)
    expected = np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    assert np.array_equal(images.decode(encoded(Image.fromarray(levels), "PNG")), expected)
    clear = encoded(Image.fromarray(levels), "PNG", transparency=0x1234)
    expected[0, 1] = 255
    assert np.array_equal(images.decode(clear), expected)


def png_of_16_bits(levels: np.ndarray, color_type: int) -> bytes:
    """A PNG as scanners write it, which Pillow itself cannot."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))

    height, width = levels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    parts = ((b"IHDR", header), (b"IDAT", compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colours_and_alpha_of_16_bits_keep_their_upper_8(color_type: int, channels: int) -> None:
    levels = np.random.default_rng(0).integers(0, 2**16, (5, 7, channels))
    if color_type != 2:
        levels[..., -1] = np.where(np.arange(7) < 3, 0xFFFF, 0)
    data = png_of_16_bits(levels, color_type)
    colors = (levels >> 8).astype(np.uint8)
    expected = colors[..., :3] if channels > 2 else np.repeat(colors[..., :1], 3, axis=-1)
    if color_type != 2:
        expected[:, 3:] = 255  # the background
    assert np.array_equal(images.decode(data), expected)
    assert images.probe(data) == ("png", 7, 5)


def test_transparency_shows_white() -> None:
    white = (255, 255, 255)
    glass = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert np.array_equal(np.unique(images.decode(encoded(glass, "PNG"))), [127])
    assert tuple(images.decode(encoded(Image.new("LA", (2, 2), (9, 0)), "PNG"))[0, 0]) == white
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    assert tuple(images.decode(encoded(palette, "PNG"))[0, 0]) == (200, 0, 0)
    assert tuple(images.decode(encoded(palette, "PNG", transparency=1))[0, 0]) == white
    keyed = encoded(Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert tuple(images.decode(keyed)[0, 0]) == white
    lossless = encoded(Image.new("RGBA", (2, 2), (9, 9, 9, 0)), "WEBP", lossless=True)
    assert tuple(images.decode(lossless)[0, 0]) == white


def test_cmyk_bilevel_and_animated_images_are_read() -> None:
    assert near(images.decode(encoded(Image.fromarray(SCENE).convert("CMYK"), "JPEG")), SCENE)
    assert images.decode(encoded(Image.new("1", (3, 2), 1), "PNG")).min() == 255
    frames = [Image.new("RGB", (5, 4), color) for color in ("red", "blue", "lime")]
    for kind in ("PNG", "WEBP"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert tuple(images.decode(data)[0, 0]) == (255, 0, 0)
        assert not images.is_plain(data)


def test_a_photograph_of_24_megapixels_is_read() -> None:
    data = encoded(Image.new("RGB", (6000, 4000), "teal"), "JPEG")
    assert images.decode(data).shape == (4000, 6000, 3)
    with pytest.raises(ValueError, match="10000 x 10000 exceeds the limit of 67108864"):
        images.decode(encoded(Image.new("1", (10_000, 10_000)), "PNG"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b"II*\0" + bytes(20), "it is a TIFF image"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"nothing", "not a PNG, WebP or JPEG image$"),
    ],
)
def test_what_is_given_instead_of_an_image_is_named(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        images.decode(data)


def test_damaged_bytes_are_a_value_error_whatever_the_decoder_runs_into() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    scene = Image.fromarray(SCENE)
    sound = [
        encoded(scene, "MPO", save_all=True, append_images=[scene], exif=exif),
        encoded(scene, "JPEG", exif=exif),
        encoded(scene.convert("CMYK"), "JPEG"),
        encoded(scene.convert("P"), "PNG", transparency=1, exif=exif),
        encoded(Image.fromarray(np.zeros((9, 9), np.uint16)), "PNG", transparency=5),
        encoded(scene.convert("RGBA"), "WEBP", exif=exif),
        encoded(scene, "WEBP", save_all=True, append_images=[scene]),
    ]
    rng, refused = random.Random(0), 0
    for data in sound:
        for _ in range(150):
            damaged = bytearray(data)
            for _ in range(rng.randint(1, 8)):
                damaged[rng.randrange(min(len(data), 300))] = rng.randrange(256)
            cut = bytes(damaged[: rng.randint(1, len(data))] if rng.random() < 0.3 else damaged)
            for read in (images.probe, images.decode, images.is_plain):
                try:
                    read(cut)
                except ValueError:
                    refused += 1
    assert refused > 100


def test_a_file_that_cannot_be_read_is_a_value_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text.png").write_text("no image")
    for name in ("absent.png", "folder.png", "text.png"):
        with pytest.raises(ValueError, match=name):
            images.decode_file(tmp_path / name)


def test_services_get_what_they_cannot_misread() -> None:
    plain = encoded(Image.fromarray(SCENE), "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.fromarray(SCENE), "JPEG", exif=exif)
    assert data_url(plain, max_side_px=80).startswith("data:image/jpeg;")
    assert data_url(turned, max_side_px=80).startswith("data:image/png;")
