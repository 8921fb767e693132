"""A picture carries how it was drawn, and a file from anywhere restores no more than that."""

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import picture

from staged import images, png_text
from staged.command_line import UsageError
from staged.generate.command import main
from staged.generate.picture_record import (
    KEYWORD,
    PictureOrigin,
    PictureRecord,
    pixels_name,
    read_record,
)
from staged.generate.settings import DrawSettings
from staged.trajectory import ImageRef, Inspection, Plan, Sketch, Trajectory, moves
from staged.trajectory_folder import load_trajectory

PROMPT = "a photo of a red circle above a blue star"
PLAN = Plan(instruction="add a red circle", description="a red circle")
ACCEPT = Inspection(target="sketch", verdict="accept", critique="as asked")
LIMIT = 10**6


def trajectory(*seeds: int) -> Trajectory:
    """Rounds of a plan, a picture, and a verdict."""
    steps = [
        step
        for seed in seeds
        for step in (PLAN, Sketch(image=ImageRef.from_array(picture(seed)), seed=seed), ACCEPT)
    ]
    return Trajectory(prompt=PROMPT, steps=tuple(steps))


def carrying(path: Path, *, text: str | None = None, checkpoint: str = "miniature:base") -> Path:
    """Write the first picture of a trajectory, with what it carries, or with another text."""
    origin = PictureOrigin.of(DrawSettings(checkpoint=checkpoint), seed=3)
    data = origin.put_into(trajectory(1, 2)).images[0].png
    assert data is not None
    if text is not None:
        data = png_text.with_png_text(data, KEYWORD, text)
    path.write_bytes(data)
    return path


# --- text in a PNG ------------------------------------------------------------------------------


def test_a_text_is_written_replaced_and_found_and_the_picture_stays() -> None:
    pixels = picture(1)
    plain = images.encode_png(pixels)
    once = png_text.with_png_text(plain, "one", "früh")
    twice = png_text.with_png_text(png_text.with_png_text(once, "two", "x"), "one", "late")
    assert (images.decode(twice) == pixels).all()
    read = [png_text.png_text(twice, name, max_bytes=9) for name in ("one", "two", "three")]
    assert read == ["late", "x", None]
    assert png_text.with_png_text(twice, "one", "früh").count(b"iTXt") == 2
    assert png_text.png_text(b"RIFF no PNG", "one", max_bytes=9) is None


def chunk(body: bytes) -> bytes:
    framed = b"iTXt" + body
    return struct.pack(">I", len(body)) + framed + struct.pack(">I", zlib.crc32(framed))


@pytest.mark.parametrize(
    ("inserted", "message"),
    [
        (chunk(b"one\0\x01\0\0\0" + zlib.compress(b"x" * 10**6)), "compressed"),
        (chunk(b"one\0\0\0\0\0" + b"x" * 20), "exceeds 9 bytes"),
        (chunk(b"one\0\0\0no end"), "or is none"),
        (chunk(b"one\0\0\0\0\0\xff"), "no UTF-8"),
        (chunk(b"one\0\0\0\0\0x")[:-1] + b"\0", "is damaged"),
        (b"\xff\xff\xff\xffiTXtone\0", "cut off"),
        (b"\0\0", "cut off"),
    ],
)
def test_a_text_that_is_no_good_is_told(inserted: bytes, message: str) -> None:
    plain = images.encode_png(picture(1))
    with pytest.raises(ValueError, match=message):
        png_text.png_text(plain[:33] + inserted + plain[33:], "one", max_bytes=9)


# --- the record ---------------------------------------------------------------------------------


def test_each_picture_carries_the_steps_up_to_it(tmp_path: Path) -> None:
    settings = DrawSettings(checkpoint="/home/me/weights/BAGEL", lora=Path("/home/me/lora"))
    origin = replace(PictureOrigin.of(settings, seed=3, weights="ab" * 32), id="traj_1")
    drawn = trajectory(1, 2)
    stamped = origin.put_into(drawn)
    for number, before in enumerate((2, 5)):
        image = stamped.images[number]
        assert (image.array() == drawn.images[number].array()).all()
        (tmp_path / "x.png").write_bytes(image.png or b"")
        record, found = read_record(tmp_path / "x.png")
        assert found.png == image.png and len(record.trajectory.steps) == before
        assert record.trajectory.steps[0] == PLAN and record.trajectory.prompt == PROMPT
        assert (record.seed, record.weights, record.id) == (3, "ab" * 32, "traj_1")
        assert record.checkpoint == "BAGEL" and "/home" not in record.to_json()
        assert PictureRecord.from_json(record.to_json()) == record
    assert origin.put_into(stamped) == stamped


def test_a_picture_that_was_changed_or_carries_nothing_is_refused(tmp_path: Path) -> None:
    path = carrying(tmp_path / "x.png")
    text = png_text.png_text(path.read_bytes(), KEYWORD, max_bytes=LIMIT)
    assert text is not None
    other = png_text.with_png_text(images.encode_png(picture(9)), KEYWORD, text)
    path.write_bytes(other)
    with pytest.raises(ValueError, match=r"x\.png: it was changed since it was drawn"):
        read_record(path)
    path.write_bytes(images.encode_png(picture(1)))
    with pytest.raises(ValueError, match="does not say how it was drawn"):
        read_record(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "staged-picture/9"}, "is not 'staged-picture/1'"),
        ({"settings": {"device": "cuda"}}, "'device' is none that a picture carries"),
        ({"settings": {"lora": "/etc"}}, "'lora' is none"),
        ({"seed": -1}, "seed: -1 is out of range"),
        ({"more": 1}, "more"),
        ({"trajectory": {"version": 1, "prompt": "x", "steps": []}}, "last step is no picture"),
    ],
)
def test_what_a_stranger_wrote_is_read_strictly(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = carrying(tmp_path / "x.png")
    text = png_text.png_text(path.read_bytes(), KEYWORD, max_bytes=LIMIT)
    assert text is not None
    carrying(path, text=json.dumps({**json.loads(text), **change}))
    with pytest.raises(ValueError, match=message):
        read_record(path)


def test_texts_of_any_bytes_break_nothing(tmp_path: Path) -> None:
    random, path = np.random.default_rng(0), tmp_path / "x.png"
    whole = carrying(path).read_bytes()
    for _ in range(200):
        data = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            data[place] = random.integers(256)
        path.write_bytes(data)
        try:
            read_record(path)
        except ValueError as error:
            assert str(path) in str(error)


# --- the command --------------------------------------------------------------------------------

BASE = ["--checkpoint", "miniature:base", "--flow-steps", "2", "--planner", "scripted"]
SCRIPTED = [*BASE, "--inspector", "scripted", "--sketcher", "editing"]


def test_a_run_goes_on_from_a_picture_as_it_went_on_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, out = tmp_path / "first", tmp_path / "again"
    assert main([PROMPT, *SCRIPTED, "--seed", "5", "--out", str(first)]) in (0, 1)
    made = load_trajectory(first)
    assert len(made.images) > 1
    for number in (0, 1):
        out = tmp_path / f"again{number}"
        argv = ["--from", str(first / f"{number}.png"), "--out", str(out)]
        assert main(argv) in (0, 1)
        again = load_trajectory(out)
        assert again.steps == made.steps
        assert again.provenance["seeds"] == {"rollout": 5}
        assert moves(again.steps[: again.provenance["forked"]["at"]])[-1] == "sketch"
        assert main(argv) in (0, 1)  # it is there
    printed = capsys.readouterr().out
    assert "steps of the picture" in printed and "otherwise" not in printed
    other = tmp_path / "other"
    argv = ["--from", str(first / "0.png"), "--seed", "6", "--max-rounds", "2"]
    assert main([*argv, "--out", str(other)]) in (0, 1)
    different = load_trajectory(other)
    assert pixels_name(different.images[0]) == pixels_name(made.images[0])
    assert different.images[1:2] != made.images[1:2]


def test_a_picture_carries_nothing_if_that_is_wanted(tmp_path: Path) -> None:
    argv = ["a star", "--checkpoint", "miniature:fresh", "--flow-steps", "1", "--mode", "one-shot"]
    assert main([*argv, "--no-record", "--out", str(tmp_path)]) == 0
    assert b"iTXt" not in (tmp_path / "final.png").read_bytes()


def test_an_edit_wants_the_image_that_it_was_drawn_onto(tmp_path: Path) -> None:
    star, out = tmp_path / "star.png", tmp_path / "out"
    star.write_bytes(images.encode_png(picture(1)))
    argv = ["change the red star to blue", "--checkpoint", "miniature:base", "--flow-steps", "1"]
    argv += ["--mode", "one-shot", "--image", str(star)]
    assert main([*argv, "--out", str(out)]) == 0
    with pytest.raises(ValueError, match="drawn from 1 input images, which it does not carry"):
        main(["--from", str(out / "final.png"), "--out", str(tmp_path / "x")])
    made = load_trajectory(out)
    again = [
        "--from",
        str(out / "final.png"),
        "--image",
        str(star),
        "--out",
        str(tmp_path / "again"),
    ]
    assert main(again) == 0
    assert load_trajectory(tmp_path / "again").steps == made.steps


def test_a_picture_has_no_say_in_what_is_loaded(tmp_path: Path) -> None:
    path = carrying(tmp_path / "x.png", checkpoint="somebody/weights")
    with pytest.raises(UsageError, match="drawn by 'weights'; give --checkpoint"):
        main(["--from", str(path)])
    with pytest.raises(UsageError, match="give one prompt"):
        main([PROMPT, "--from", str(path), "--checkpoint", "miniature:base"])
    text = png_text.png_text(path.read_bytes(), KEYWORD, max_bytes=LIMIT)
    assert text is not None
    record = PictureRecord.from_json(text)
    changed = replace(record, checkpoint="miniature:base", settings={"max_rounds": -1})
    carrying(path, text=changed.to_json())
    with pytest.raises(ValueError, match="max_rounds"):
        main(["--from", str(path)])
