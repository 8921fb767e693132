"""A folder of images that were made elsewhere, as a generator: each is found by a pattern."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from eval.generation.samples import BenchmarkSample
from eval.generation.settings import ExistingSettings
from staged import images
from staged.backends.generators.generator import DrawnImage, DrawOutcome, NoImage

_FIELDS = ("prompt", "image", "number")
_COUNTS = {"image", "number"}
_ENDINGS = (*images.SUFFIXES, *map(str.upper, images.SUFFIXES))


class Existing:
    """Images found below a folder.

    Args:
        settings: Which folder, and what an image is called in it.

    Raises:
        ValueError: no such folder, or a pattern that cannot tell images apart.
    """

    alone = True

    def __init__(self, settings: ExistingSettings) -> None:
        """Check folder and pattern."""
        if not settings.images.is_dir():
            raise ValueError(f"images: {settings.images} is no folder")
        self.settings = settings
        fields = {name for name in _fields_of(settings.pattern) if name is not None}
        unknown = sorted(fields - set(_FIELDS))
        if unknown or not fields & {"prompt", "number"}:
            raise ValueError(
                f"pattern {settings.pattern!r}: use {{prompt}} and {{image}}, or {{number}}, "
                f"such as '{{prompt:05}}/samples/{{image:05}}.png'"
                + (f"; there is no {{{unknown[0]}}}" if unknown else "")
            )
        if PurePosixPath(settings.pattern).is_absolute() or ".." in settings.pattern.split("/"):
            raise ValueError(f"pattern {settings.pattern!r} leads out of {settings.images}")

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.settings.images)

    def identity(self) -> Mapping[str, Any]:
        """Folder and pattern; what the images are, their own SHA-256 say."""
        return {"images": str(self.settings.images), "pattern": self.settings.pattern}

    def draw(
        self, samples: Sequence[BenchmarkSample]
    ) -> Iterator[tuple[BenchmarkSample, DrawOutcome]]:
        """Read each image; one that is missing or broken has failed."""
        if any(s.image for s in samples) and not set(_fields_of(self.settings.pattern)) & _COUNTS:
            raise ValueError(
                f"pattern {self.settings.pattern!r} finds the same image for each of a prompt; "
                "use {image} or {number}, or give --images-per-prompt 1"
            )
        for sample in samples:
            yield sample, self._read(sample, self._find(sample))

    def _read(self, sample: BenchmarkSample, path: Path | None) -> DrawOutcome:
        if path is None:
            wanted = self._path(sample)
            named = wanted.suffix.lower() in images.SUFFIXES
            ending = "" if named else " with an ending of an image"
            return NoImage(reason="no image", detail=f"no {wanted}{ending}")
        try:
            return DrawnImage(pixels=images.decode_file(path))
        except ValueError as error:
            return NoImage(reason="broken image", detail=str(error))

    def _find(self, sample: BenchmarkSample) -> Path | None:
        path = self._path(sample)
        if path.suffix.lower() in images.SUFFIXES:
            return path if path.is_file() else None
        named = [p for ending in _ENDINGS if (p := Path(f"{path}{ending}")).is_file()]
        # Where case does not count, the same file has both names.
        there = list({p.stat().st_ino: p for p in reversed(named)}.values())
        if len(there) > 1:
            raise ValueError(
                f"{' and '.join(map(str, there))}: both could be meant; end the pattern in one of "
                f"{', '.join(images.SUFFIXES)}"
            )
        return there[0] if there else None

    def _path(self, sample: BenchmarkSample) -> Path:
        key = sample.prompt_key
        try:
            name = self.settings.pattern.format(
                prompt=int(key) if key.isdigit() else key, image=sample.image, number=sample.number
            )
        except ValueError as error:
            raise ValueError(f"pattern {self.settings.pattern!r}: {error}") from None
        return self.settings.images / name


def _fields_of(pattern: str) -> list[str | None]:
    try:
        return [name for _, name, _, _ in string.Formatter().parse(pattern)]
    except ValueError as error:
        raise ValueError(f"pattern {pattern!r}: {error}") from None
