"""Pick-a-Pic v1: which of two pictures people preferred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from staged import images, protocol
from staged.tables import BadRowError, ParquetFile
from train.self_reward.asking import MAX_PROMPT_CHARS
from train.self_reward.examples import keep_picture
from train.self_reward.preferences import PicturePair

_WANTED: Final[dict[str, type | tuple[type, ...]]] = {
    "caption": str,
    "jpg_0": bytes,
    "jpg_1": bytes,
    "label_0": (int, float, type(None)),
    "label_1": (int, float, type(None)),
}
_MAYBE: Final = "has_label"
"""Column of whether anybody chose; older parts have none."""


def pick_a_pic(path: Path, pictures: Path, dropped: Counter[str]) -> Iterator[PicturePair]:
    """Yield the pairs of a parquet file of Pick-a-Pic v1 (`yuvalkirstain/pickapic_v1`), in order.

    Args:
        path: The file.
        pictures: Folder for the pictures, as they are encoded there.
        dropped: Told of each row that gives no pair, by reason: nobody chose, a tie, a caption
            that is none or too long, a picture that cannot be read.

    Raises:
        ValueError: It is another file, or labels are none; names the row.
        OSError: It cannot be read, or a picture not written.
    """
    file = ParquetFile(path)
    file.require([*_WANTED])
    columns = [*_WANTED, *([_MAYBE] if _MAYBE in file.names else [])]
    for number, row in file.rows(columns):
        if isinstance(row, BadRowError):
            raise row
        place = f"{path}: row {number + 1}"
        for name, kind in _WANTED.items():
            if not isinstance(row[name], kind):
                raise ValueError(f"{place}, {name}: {row[name]!r:.60}")
        labels = row["label_0"], row["label_1"]
        if not row.get(_MAYBE, True) or None in labels:
            dropped["no label"] += 1
            continue
        if labels == (0.5, 0.5):
            dropped["tie"] += 1
            continue
        if labels not in ((1, 0), (0, 1)):
            raise ValueError(
                f"{place}: labels {labels[0]!r:.20} and {labels[1]!r:.20}; expected "
                "1 for the preferred picture and 0 for the other, or 0.5 for both"
            )
        caption = _caption(row["caption"])
        if caption is None:
            dropped["caption"] += 1
            continue
        encoded = row["jpg_0"], row["jpg_1"]
        if not all(map(_readable, encoded)):
            dropped["picture"] += 1
            continue
        first, second = (keep_picture(pictures, data) for data in encoded)
        yield PicturePair(
            prompt=caption, images=(first, second), preferred=0 if labels == (1, 0) else 1
        )


def _caption(text: str) -> str | None:
    found = " ".join(text.split())
    try:
        protocol.check_text(found)
    except ValueError:  # what cannot stand in a sequence
        return None
    return found if len(found) <= MAX_PROMPT_CHARS else None


def _readable(data: Any) -> bool:
    try:
        images.decode(data)
    except ValueError:
        return False
    return True
