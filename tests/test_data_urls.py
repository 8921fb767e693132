"""Images in base64, however a service writes it."""

import ast
import base64
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from staged import data_urls, images
from staged.backends.generators.generator import DrawnImage, NoImage
from staged.backends.generators.image_service import _understood
from staged.data_urls import from_base64, to_data_url
from staged.shapes.players.lmm import _image

# Bytes that need both of the characters in which the alphabets differ, and padding.
PICTURE = np.random.default_rng(3).integers(0, 256, (9, 7, 3), np.uint8)
DATA = images.encode_png(PICTURE)
while len(DATA) % 3 != 1:
    DATA += b"\0"  # behind the end of a PNG, which nothing reads
PLAIN = base64.b64encode(DATA).decode()
SAFE = base64.urlsafe_b64encode(DATA).decode()
LINES = "\r\n".join(PLAIN[i : i + 76] for i in range(0, len(PLAIN), 76))

WRITTEN = {
    "plain": PLAIN,
    "without padding": PLAIN.rstrip("="),
    "in lines": LINES,
    "for URLs": SAFE,
    "for URLs, without padding": SAFE.rstrip("="),
    "with a line end behind": f"{PLAIN}\n",
    "data URL": f"data:image/png;base64,{PLAIN}",
    "data URL in lines": f"data:image/png;base64,\n{LINES}\n",
    "data URL of another type": f"data:application/octet-stream;base64,{PLAIN}",
    "data URL with a parameter": f"data:image/png;name=a.png;base64,{PLAIN}",
    "data URL without a type": f"data:;base64,{SAFE}",
    "data URL in upper case": f"DATA:image/PNG;BASE64,{PLAIN}",
    "data URL, quoted": f"data:image/png;base64,{quote(PLAIN, safe='')}",
}


def test_the_picture_has_what_tells_the_alphabets_apart() -> None:
    assert {"+", "/", "="} < set(PLAIN) and {"-", "_"} < set(SAFE)


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_every_spelling_is_read(text: str) -> None:
    assert from_base64(text) == DATA
    outcome = _understood({"data": [{"b64_json": text}]}, {})
    assert isinstance(outcome, DrawnImage) and np.array_equal(outcome.pixels, PICTURE)
    if text[:5].lower() == "data:":
        assert _image(text) == DATA
        outcome = _understood({"data": [{"b64_json": None, "url": text}]}, {})
        assert isinstance(outcome, DrawnImage) and np.array_equal(outcome.pixels, PICTURE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty base64"),
        ("==\n", "empty base64"),
        ("data:image/png;base64,", "empty base64"),
        ("data:image/png,abc", "expected `data:image"),
        ("data:image/png;base64", "expected `data:image"),
        ("AAAAA", "not base64"),
        ("https://example.com/a.png", "not base64"),
        ("AAAA*AAA", "not base64"),
        ("AA=AAAAA", "not base64"),
        ("AAAA\u00e9AAA", "not base64"),
        ("\u0661AAA", "not base64"),
    ],
)
def test_what_is_no_base64_is_said(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_base64(text)
    outcome = _understood({"data": [{"b64_json": text}]}, {})
    assert isinstance(outcome, NoImage) and outcome.reason == "invalid_image"


def test_it_is_bounded_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_urls, "MAX_CHARS", 100)
    with pytest.raises(ValueError, match="base64 of 101 characters exceeds the limit of 100"):
        from_base64("A" * 101)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert to_data_url(DATA) == f"data:image/png;base64,{PLAIN}"
    assert from_base64(to_data_url(DATA)) == DATA
    with pytest.raises(ValueError, match="not a PNG"):
        to_data_url(b"GIF89a")


def test_base64_is_handled_in_one_place() -> None:
    found = set()
    root = Path(__file__).parents[1]
    for folder in ("staged", "data_pipelines", "train", "eval"):
        for path in (root / folder).rglob("*.py"):
            imported = {
                name.name
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Import)
                for name in node.names
            }
            if imported & {"base64", "binascii"}:
                found.add(path.relative_to(root).as_posix())
    assert found == {"staged/data_urls.py"}
