"""Images that numbers name, in the folders that benchmarks' tools leave.

Two layouts: `NNNNN/metadata.jsonl` with `NNNNN/samples/NNNNN.png`, where the outer number is a
prompt's and the inner one an image's; and `NNNNN.png`, an image a prompt. Tools write them with
other widths, as JPEG or WebP, with names in upper case, without `samples`, and with a grid of all
images beside; all of these are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from staged import images

METADATA = "metadata.jsonl"
SAMPLES = "samples"
_NOT_READ = (".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".jfif", ".jp2", ".jxl", ".ppm")
"""Endings of images that nothing here reads; other files beside images are nobody's business."""


@dataclass(frozen=True, kw_only=True)
class NumberedFolder:
    """What lies in the folder of one prompt.

    Attributes:
        index: Of the prompt.
        path: The folder.
        metadata: The file with the prompt's record.
        images: By number, in order; those that exist.
    """

    index: int
    path: Path
    metadata: Path
    images: dict[int, Path]


def numbered_folders(source: Path) -> Iterator[NumberedFolder]:
    """Read the folders of prompts in order of their numbers.

    Raises:
        ValueError: no such folder, one without a record, or a number that occurs twice.
        OSError: something cannot be read.
    """
    by_number: dict[int, Path] = {}
    for path in sorted(path for path in source.iterdir() if path.is_dir()):
        if (number := _number(path.name)) is not None:
            _put(by_number, number, path)
        elif _entry(path, METADATA) is not None:
            raise ValueError(f"{path}: holds a {METADATA}, but its name is no number")
    if not by_number:
        raise ValueError(
            f"{source}: no folders 00000, 00001, … with {METADATA} and {SAMPLES}"
            + _instead(source, "; is it the parent that is meant?")
        )
    for number, path in sorted(by_number.items()):
        metadata, samples = _entry(path, METADATA), _entry(path, SAMPLES)
        if metadata is None:
            raise ValueError(f"{path}: no {METADATA}; it says what the images must show")
        found = numbered_images(path)
        if samples is not None and samples.is_dir():
            if found:
                raise ValueError(
                    f"{next(iter(found.values()))}: lies beside {samples.name}; are the images in "
                    "there, or here?"
                )
            found = numbered_images(samples)
        yield NumberedFolder(index=number, path=path, metadata=metadata, images=found)


def numbered_images(folder: Path) -> dict[int, Path]:
    """Find the images of a folder whose names are numbers, in order.

    Raises:
        ValueError: a number occurs twice, or an image is of a kind that is not read.
        OSError: the folder cannot be read.
    """
    found: dict[int, Path] = {}
    others: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if (number := _number(path.stem)) is None or not path.is_file():
            continue
        if path.suffix.lower() in images.SUFFIXES:
            _put(found, number, path)
        elif path.suffix.lower() in _NOT_READ:
            others[number] = path
    for number in others.keys() - found.keys():
        raise ValueError(f"{others[number]}: not read; convert it to PNG, WebP or JPEG")
    return dict(sorted(found.items()))


def no_images(folder: Path) -> ValueError:
    """Say that a folder has no images with numbers for names, and what it has instead."""
    return ValueError(f"{folder}: no image whose name is a number" + _instead(folder))


def _instead(folder: Path, otherwise: str = "") -> str:
    """Name an image that is there under a name that says nothing."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in images.SUFFIXES:
            return (
                f"; there is {path.relative_to(folder)}. `staged eval generate --generator folder` "
                "takes images of other names by a pattern"
            )
    return otherwise


def _put(known: dict[int, Path], number: int, path: Path) -> None:
    if number in known:
        raise ValueError(
            f"{path.parent}: the number {number} occurs twice, {known[number].name} and {path.name}"
        )
    known[number] = path


def _entry(folder: Path, name: str) -> Path | None:
    """Find what has a name in either case."""
    if (folder / name).exists():
        return folder / name
    return next((path for path in sorted(folder.iterdir()) if path.name.lower() == name), None)


def _number(name: str) -> int | None:
    return int(name) if name.isascii() and name.isdigit() and len(name) < 19 else None
