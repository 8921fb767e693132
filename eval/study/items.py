"""What a study shows, in which order, and what the order hides.

    study.html        the page: pictures without names, and a script that keeps the votes
    study.key.json    which picture is of which line; stays with whoever holds the study

The order of the pictures is drawn for each item from the study's seed. Two lines whose pictures are
the same bytes are shown once, and a vote for that picture counts for each in equal shares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from staged import strict_json
from staged.ideas.exploration import Exploration
from staged.ideas.idea import Idea
from staged.jobs.files import write_json

FORMAT: Final = "staged-study/1"
MAX_ITEMS: Final = 2000
_MAX_KEY_BYTES: Final = 16 * 2**20
LINES: Final = {"manual": "own prompt", "first": "first round", "refined": "refined"}
"""What is voted between, as in the paper's study (arXiv 2310.08541), in words."""


@dataclass(frozen=True, kw_only=True)
class StudyItem:
    """One choice.

    Attributes:
        id: Its name in votes; says nothing of what is shown.
        idea: What the pictures are to show.
        pictures: Encoded, different, in the order in which they are shown.
        lines: Lines of each picture.
        cluster: What it shares with items of the same idea.
    """

    id: str
    idea: Idea
    pictures: tuple[bytes, ...]
    lines: tuple[tuple[str, ...], ...]
    cluster: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """Items and how they came about.

    Attributes:
        title: Above the page.
        seed: Of the order.
        items: In the order in which they are shown.
    """

    title: str
    seed: int
    items: tuple[StudyItem, ...]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of everything that is shown, and how: votes name it."""
        content = hashlib.sha256(f"{FORMAT} {self.seed} {self.title}".encode())
        for item in self.items:
            content.update(item.id.encode() + item.idea.digest.encode())
            for picture in item.pictures:
                content.update(hashlib.sha256(picture).digest())
        return content.hexdigest()


@dataclass(frozen=True, kw_only=True)
class StudyKey:
    """What is needed to count votes.

    Attributes:
        digest: Of the study.
        title: Of the study.
        lines: Item to the lines of each of its pictures.
        clusters: Item to its cluster.
    """

    digest: str
    title: str
    lines: Mapping[str, tuple[tuple[str, ...], ...]]
    clusters: Mapping[str, str]


def make_study(explorations: Sequence[Exploration], *, title: str, seed: int) -> Study:
    """Draw the order of items and pictures.

    Args:
        explorations: Those that lack one of the three pictures are left out.
        title: Above the page.
        seed: Of the order.

    Raises:
        ValueError: None has all three, or there are too many.
    """
    items = [
        item
        for number, one in enumerate(explorations)
        if (item := _item(one, number, seed)) is not None
    ]
    if not 1 <= len(items) <= MAX_ITEMS:
        raise ValueError(
            f"{len(items)} of {len(explorations)} explorations have a picture of each of "
            f"{', '.join(LINES.values())}; a study has 1 to {MAX_ITEMS}"
            + (" (explore with policy.control=one)" if not items else "")
        )
    order = np.random.default_rng(seed).permutation(len(items))
    return Study(title=title, seed=seed, items=tuple(items[i] for i in order))


def write_key(study: Study, path: Path) -> None:
    """Write what the page hides."""
    write_json(
        path,
        {
            "format": FORMAT,
            "digest": study.digest,
            "title": study.title,
            "seed": study.seed,
            "items": {
                item.id: {
                    "idea": item.idea.text,
                    "cluster": item.cluster,
                    "lines": [list(lines) for lines in item.lines],
                }
                for item in study.items
            },
        },
    )


def read_key(path: Path) -> StudyKey:
    """Read what `write_key` wrote.

    Raises:
        ValueError: It is anything else; names the file.
        OSError: It cannot be read.
    """
    place = str(path)
    data = strict_json.read(path, max_bytes=_MAX_KEY_BYTES)
    fields = {"format": str, "digest": str, "title": str, "seed": int, "items": dict}
    found = strict_json.record(data, place, fields)
    if found["format"] != FORMAT:
        raise ValueError(f"{place}: format {found['format']!r:.40} is not {FORMAT!r}")
    lines: dict[str, tuple[tuple[str, ...], ...]] = {}
    clusters: dict[str, str] = {}
    for name, item in found["items"].items():
        where = f"{place}: items.{name}"
        known = strict_json.record(item, where, {"idea": str, "cluster": str, "lines": list})
        lines[name] = tuple(_lines(one, where) for one in known["lines"])
        clusters[name] = known["cluster"]
    return StudyKey(digest=found["digest"], title=found["title"], lines=lines, clusters=clusters)


def _lines(value: Any, place: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or any(one not in LINES for one in value):
        raise ValueError(f"{place}: {value!r:.80} are no lines; expected {', '.join(LINES)}")
    return tuple(value)


def _item(exploration: Exploration, number: int, seed: int) -> StudyItem | None:
    shown: dict[bytes, list[str]] = {}
    for line in LINES:
        draft = getattr(exploration, line)
        if draft is None or draft.image is None or draft.image.png is None:
            return None
        shown.setdefault(draft.image.png, []).append(line)
    content = f"{seed}/{number}/{exploration.idea.digest}/{exploration.seed}"
    digest = hashlib.sha256(content.encode()).hexdigest()
    pictures = list(shown)
    order = np.random.default_rng(int(digest[:16], 16)).permutation(len(pictures))
    return StudyItem(
        id=digest[:12],
        idea=exploration.idea,
        pictures=tuple(pictures[i] for i in order),
        lines=tuple(tuple(shown[pictures[i]]) for i in order),
        cluster=exploration.idea.digest[:16],
    )
