"""Triples in the layout of GenRef: WebDataset tars of two images and three texts.

A sample is `KEY.good_image.jpg`, `KEY.bad_image.jpg`, `KEY.prompt.txt`, `KEY.reflection.txt` and
`KEY.subset.txt`, the subset being one of `general`, `length`, `rule` and `editing`
(arXiv 2504.16080).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data_pipelines.refine.triples import Triple, reflection_of
from staged import images
from staged.shards import tar
from staged.tables import BadRowError

SUBSETS: Final = ("general", "length", "rule", "editing")
_MAX_TEXT_BYTES: Final = 64 * 1024
_EXTENSIONS: Final = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True)
class _Place:
    shard: Path
    key: str
    members: dict[str, tuple[int, int]]

    def __str__(self) -> str:
        return f"{self.shard.name}, sample {self.key!r:.100}"


class GenRef:
    """The samples of a folder of tars.

    Args:
        folder: Of `*.tar`, or one of them.
        subsets: Which to take; all of a sample without `subset.txt` are taken.

    Raises:
        ValueError: no tars, or one is damaged or truncated; names it.
    """

    def __init__(self, folder: Path, subsets: Sequence[str] = SUBSETS) -> None:
        """Walk over the headers of every tar; nothing else is read."""
        shards = [folder] if folder.is_file() else sorted(folder.glob("*.tar"))
        if not shards:
            raise ValueError(f"{folder}: no .tar files; GenRef comes as WebDataset tars")
        self._places: list[_Place] = []
        for shard in shards:
            with shard.open("rb") as file:
                for group in tar.groups(file, shard.name):
                    found = {
                        member.name.partition(".")[2]: (member.data, member.size)
                        for member in group.members
                    }
                    self._places.append(_Place(shard, group.key, found))
        if set(subsets) != set(SUBSETS):
            self._places = [place for place in self._places if self._subset(place) in subsets]

    def __len__(self) -> int:
        """Return how many samples there are."""
        return len(self._places)

    def prompt(self, number: int) -> str:
        """Read the prompt of a sample."""
        place = self._places[number]
        text = self._text(place, "prompt")
        if text is None:
            raise BadRowError("missing prompt", str(place), "it has no prompt.txt")
        return text

    def triple(self, number: int) -> Triple:
        """Read a sample."""
        place = self._places[number]
        good, bad = self._image(place, "good_image"), self._image(place, "bad_image")
        if good is None:
            raise BadRowError("missing image", str(place), "it has no good_image")
        return Triple(
            prompt=self.prompt(number),
            good=good,
            bad=bad,
            reflection=reflection_of(self._text(place, "reflection")),
            subset=self._subset(place),
            place=str(place),
        )

    def _subset(self, place: _Place) -> str | None:
        return self._text(place, "subset")

    def _text(self, place: _Place, name: str) -> str | None:
        data = self._read(place, f"{name}.txt", _MAX_TEXT_BYTES)
        try:
            return None if data is None else data.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise BadRowError("bad text", str(place), f"{name}.txt: {error}") from None

    def _image(self, place: _Place, name: str) -> bytes | None:
        for extension in _EXTENSIONS:
            data = self._read(place, f"{name}.{extension}", images.MAX_IMAGE_BYTES)
            if data is not None:
                return data
        return None

    def _read(self, place: _Place, name: str, most: int) -> bytes | None:
        if name not in place.members:
            return None
        start, size = place.members[name]
        if size > most:
            raise BadRowError("too large", str(place), f"{name}: {size} bytes exceed {most}")
        with place.shard.open("rb") as file:
            file.seek(start)
            return file.read(size)
