"""What may be expected of a miniature's pictures, in words and by its own record."""

from __future__ import annotations

from staged import strict_json
from staged.shapes.card import RECORD
from staged.shapes.miniature import CHECKPOINTS, PREFIX

_MAX_BYTES = 1 << 22


def expectation(source: str) -> str:
    """Say what a reader of a miniature's pictures must know.

    Args:
        source: The checkpoint, as it was named; a shipped one's record has its score.
    """
    share = _share_right(source)
    scored = (
        "Many of its pictures are wrong"
        if share is None
        else f"Of {share[1]} pictures of combinations that training never showed, "
        f"{100 * share[0]:.0f} in 100 were right"
    )
    return (
        "The model is a miniature: a few million weights, where the full-size model has fourteen "
        f"billion, trained for an hour or two. {scored}, and it accepts wrong ones too. The "
        "detector looks at the pixels alone; where the two differ, believe the detector. This "
        "shows how a picture comes about in stages, not how good full-size pictures are."
    )


def _share_right(source: str) -> tuple[float, int] | None:
    """Return the score of a shipped miniature, and of how many pictures."""
    record = CHECKPOINTS / source.removeprefix(PREFIX) / RECORD
    if not source.startswith(PREFIX) or not record.is_file():
        return None
    text = record.read_text(encoding="utf-8")
    results = strict_json.loads(text, place=str(record), max_bytes=_MAX_BYTES)["results"]
    suites = [r for r in results if r.get("benchmark") == "miniature"]
    return (suites[-1]["overall"], suites[-1]["n"]) if suites else None
