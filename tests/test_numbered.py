"""Folders of images as other tools leave them: read, or refused by name, never passed over."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_eval_judge import Judge, judged

from eval.__main__ import main as staged_eval
from eval.geneval.folders import read_folders
from eval.geneval.prompt import parse_prompt
from eval.pictures import read_pictures
from staged.shapes.world.render import render
from staged.shapes.world.scene import Scene, Shape

RECORD = {"tag": "single_object", "include": [{"class": "star", "count": 1}], "prompt": "a star"}


def draw(path: Path, *, kind: str | None = None) -> Path:
    """A picture with one star."""
    star = Shape(kind="star", color="red", size="large", x=24, y=24)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = render(Scene(shapes=(star,), background=(170, 170, 170)))
    Image.fromarray(pixels).save(path, format=kind)
    return path


def tree(folder: Path, *names: str, metadata: str = "metadata.jsonl") -> Path:
    """A GenEval folder with one prompt and images of these names below its folder."""
    place = folder / "00000"
    place.mkdir(parents=True)
    (place / metadata).write_text(json.dumps(RECORD))
    for name in names:
        draw(place / name, kind="PNG" if name.endswith((".bmp", ".txt")) else None)
    return folder


def detect(folder: Path) -> tuple[int, Path]:
    out = folder.parent / "found.jsonl"
    return staged_eval(["detect", str(folder), "--detector", "miniature", "--out", str(out)]), out


LAYOUTS = {
    "jpg": ["samples/00000.jpg", "samples/00001.jpeg"],
    "webp": ["samples/0.webp", "samples/1.webp"],
    "upper case": ["samples/00000.PNG", "samples/00001.JPG"],
    "upper-case folder": ["Samples/00000.png", "Samples/00001.png"],
    "beside the record": ["00000.png", "00001.jpg"],
    "with others": ["samples/0.png", "samples/1.png", "grid.png", "samples/0.txt", "mask.png"],
}


@pytest.mark.parametrize("names", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_of_other_tools_are_read(
    tmp_path: Path, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tree(tmp_path / "images", *names)
    [found] = read_folders(folder)
    assert [index for index, _ in found.images] == [0, 1]
    assert [picture.path for picture in read_pictures(folder)] == [p for _, p in found.images]
    code, out = detect(folder)
    assert (code, len(out.read_text().splitlines())) == (0, 2)
    assert "looked at 2 images" in capsys.readouterr().out


def test_names_in_upper_case_are_those_of_the_record_too(tmp_path: Path) -> None:
    [found] = read_folders(tree(tmp_path, "samples/0.png", metadata="METADATA.JSONL"))
    assert found.prompt.text == "a star"


def flat(folder: Path) -> None:
    draw(folder / "00000_0.png")


def named(folder: Path) -> None:
    tree(folder, "samples/sample_0.png", "samples/sample_1.png")


def empty(folder: Path) -> None:
    tree(folder)


def unread(folder: Path) -> None:
    tree(folder, "samples/00000.bmp", "samples/00001.png")


def twice(folder: Path) -> None:
    tree(folder, "samples/00000.png", "samples/0.jpg")


def two_places(folder: Path) -> None:
    tree(folder, "samples/00000.png", "00001.png")


def unnumbered(folder: Path) -> None:
    tree(folder, "samples/0.png")
    (folder / "00000").rename(folder / "p0")
    tree(folder, "samples/0.png")


REFUSED: list[tuple[Callable[[Path], None], str]] = [
    (flat, r"there is 00000_0\.png.*--generator folder"),
    (named, r"no image whose name is a number; there is 00000/samples/sample_0\.png"),
    (empty, r"images: no image"),
    (unread, r"00000\.bmp: not read; convert it"),
    (twice, r"the number 0 occurs twice, 0\.jpg and 00000\.png"),
    (two_places, r"00001\.png: lies beside samples"),
    (unnumbered, r"p0: holds a metadata\.jsonl, but its name is no number"),
]


@pytest.mark.parametrize(
    ("make", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", "")
)
def test_what_is_not_read_is_refused_by_name(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    """It was passed over: `looked at 0 images`, and success."""
    folder = tmp_path / "images"
    make(folder)
    with pytest.raises(ValueError, match=message):
        detect(folder)
    assert not (tmp_path / "found.jsonl").exists()


def test_prompts_without_images_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tree(tmp_path / "images", "samples/0.png")
    (folder / "00001").mkdir()
    (folder / "00001" / "metadata.jsonl").write_text(json.dumps(RECORD | {"prompt": "one star"}))
    assert detect(folder)[0] == 0
    assert "1 prompts have no image" in capsys.readouterr().out


def test_images_that_are_all_broken_are_no_success(tmp_path: Path) -> None:
    folder = tree(tmp_path / "images")
    (folder / "00000" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match="not one image could be looked at"):
        detect(folder)


def test_keys_that_others_added_to_a_record_are_passed_over() -> None:
    expected = parse_prompt(RECORD, "x")
    added = {"id": 3, "prompt_id": "a", "index": 0, "seed": 1, "source": {"a": []}}
    assert parse_prompt(RECORD | added, "x") == expected
    for key in ("exlude", "excludes"):
        with pytest.raises(ValueError, match=f"x: unknown key '{key}'; did you mean 'exclude'"):
            parse_prompt(RECORD | {key: []}, "x")
    clause = {"class": "star", "count": 1, "size": "large"}
    with pytest.raises(ValueError, match="unknown key 'size'"):
        parse_prompt(RECORD | {"include": [clause]}, "x")


def test_wise_takes_any_image_of_a_prompts_number(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for name in ("1.jpg", "0002.webp", "450.PNG"):
        draw(images / name)
    judge = Judge({"score": 1})
    code, out = judged(tmp_path, images, "verified", judge)
    scores = {line["prompt_id"]: line["score"] for line in map(json.loads, out.open())}
    assert code == 0 and len(judge.bodies) == 3
    assert {number for number, score in scores.items() if score == 1} == {1, 2, 450}


def test_wise_without_images_asks_nobody_and_fails(tmp_path: Path) -> None:
    images = tmp_path / "images"
    draw(images / "prompt-1.png")
    judge = Judge({"score": 1})
    with pytest.raises(
        ValueError, match=r"no image whose name is a number; there is prompt-1\.png"
    ):
        judged(tmp_path, images, "verified", judge)
    assert not judge.bodies
    (images / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="not one image was judged"):
        judged(tmp_path, images, "verified", judge)


def test_a_pattern_finds_endings_in_upper_case(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps(RECORD))
    draw(tmp_path / "flat" / "0_0.JPEG")

    def generate(pattern: str, *more: str) -> int:
        return staged_eval(
            ["generate", "--benchmark", "geneval", "--prompts", str(prompts), "--out",
             str(tmp_path / pattern.replace("{", "").replace("}", "")), *more,
             "--generator", "folder", "--images-per-prompt", "1",
             f"images={tmp_path / 'flat'}", f"pattern={pattern}"]
        )  # fmt: skip

    assert generate("{prompt}_{image}") == 0
    [picture] = read_pictures(tmp_path / "prompt_image")
    assert np.asarray(Image.open(picture.path)).shape == (48, 48, 3)
    with pytest.raises(ValueError, match="no image of any sample"):
        generate("{prompt}-{image}", "--allow-unscored")
