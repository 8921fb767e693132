"""Whether an image shows its prompt, decided from detections exactly as the reference does.

The rules are those of `evaluation/evaluate_images.py` in djghosh13/geneval, its quirks included:
counting asks for surer detections than the other tasks; colour and position look only at the
best-scored objects; a relation is measured against the length of the whole offset. One thing is
not reproduced: where two relations hold at once the reference names them in the order of a Python
set, which changes between its runs; here it is left, right, above, below.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from eval.geneval.names import COLORS
from eval.geneval.prompt import GenEvalPrompt, Include
from staged.roles import Detection

MIN_SCORE = 0.3
"""A detection counts above it."""
MIN_SCORE_COUNTING = 0.9
"""The same in the task `counting`."""
MAX_PER_CLASS = 16
OVERLAP_SHARE = 0.1
"""Of both objects' sizes; an offset shorter than that is none."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """What scoring one image says.

    Attributes:
        correct: None where it cannot be decided: unscored.
        reason: Every clause that fails, a line each, in the reference's words; empty when correct;
            why not, when unscored.
    """

    correct: bool | None
    reason: str

    @property
    def num_failed(self) -> int:
        """How many clauses fail."""
        return 0 if self.correct is not False else self.reason.count("\n") + 1


def kept(detections: Iterable[Detection], tag: str) -> dict[str, list[Detection]]:
    """Return the detections that count, by class, best first.

    Equal scores come in reverse order, as from the reference's reversed sort.
    """
    threshold = MIN_SCORE_COUNTING if tag == "counting" else MIN_SCORE
    by_class: dict[str, list[Detection]] = {}
    for detection in detections:
        if detection.score > threshold:
            by_class.setdefault(detection.class_name, []).append(detection)
    return {
        name: sorted(found, key=lambda detection: detection.score)[::-1][:MAX_PER_CLASS]
        for name, found in by_class.items()
    }


def to_color(prompt: GenEvalPrompt, detections: Iterable[Detection]) -> list[Detection]:
    """Return the detections whose colour the verdict will ask for, and no others."""
    by_class = kept(detections, prompt.tag)
    wanted: list[Detection] = []
    for clause in prompt.include:
        found = by_class.get(clause.class_name, [])
        if clause.color is not None and len(found) >= clause.count:
            wanted += found[: clause.count]
    return wanted


def relations(a: Box, b: Box) -> tuple[str, ...]:
    """Say where `a` is, seen from `b`.

    Args:
        a: Left, top, right, bottom in pixels; any two opposite corners will do.
        b: The same.

    Returns:
        None, one or two of the four relations.
    """
    offsets, lengths = [], []
    for axis in (0, 1):
        sizes = abs(a[axis + 2] - a[axis]) + abs(b[axis + 2] - b[axis])
        offset = (a[axis] + a[axis + 2]) / 2 - (b[axis] + b[axis + 2]) / 2
        offsets.append(offset)
        lengths.append(math.copysign(max(abs(offset) - OVERLAP_SHARE * sizes, 0.0), offset))
    if all(abs(length) < 1e-3 for length in lengths):
        return ()
    # Of the offset before the sizes were taken off, so near objects have no relation at all.
    distance = math.sqrt(offsets[0] ** 2 + offsets[1] ** 2)
    x, y = (length / distance for length in lengths)
    holds = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return tuple(relation for relation, true in holds.items() if true)


def judge(prompt: GenEvalPrompt, detections: Iterable[Detection]) -> ImageScore:
    """Score one image.

    Args:
        prompt: What it must show.
        detections: Everything that was found, in the detector's order; those of `to_color` need
            a colour.
    """
    by_class = kept(detections, prompt.tag)
    reasons: list[str] = []
    groups: list[list[Detection] | None] = []
    for clause in prompt.include:
        found = by_class.get(clause.class_name, [])[: clause.count]
        if clause.color is not None and len(found) == clause.count:
            colorless = sum(detection.color is None for detection in found)
            if colorless:
                return ImageScore(
                    correct=None, reason=f"unscored: {colorless} {clause.class_name} without color"
                )
        failed = _count(clause, found) or _color(clause, found) or _position(clause, found, groups)
        groups.append(None if failed else found)
        reasons += [failed] if failed else []
    reasons += _excluded(prompt, by_class)
    return ImageScore(correct=not reasons, reason="\n".join(reasons))


def _count(clause: Include, found: Sequence[Detection]) -> str:
    if len(found) >= clause.count:
        return ""
    return f"expected {clause.class_name}>={clause.count}, found {len(found)}"


def _color(clause: Include, found: Sequence[Detection]) -> str:
    if clause.color is None:
        return ""
    colors = [detection.color for detection in found]
    num_right = colors.count(clause.color)
    if num_right >= clause.count:
        return ""
    counts = ", ".join(f"{colors.count(color)} {color}" for color in COLORS if color in colors)
    return (
        f"expected {clause.color} {clause.class_name}>={clause.count}, "
        f"found {num_right} {clause.color}; and {counts}"
    )


def _position(
    clause: Include, found: Sequence[Detection], groups: Sequence[list[Detection] | None]
) -> str:
    if clause.relation is None:
        return ""
    assert clause.target is not None
    targets = groups[clause.target]
    if targets is None:
        return f"no target for {clause.class_name} to be {clause.relation}"
    for detection in found:
        for target in targets:
            true = relations(detection.box, target.box)
            if clause.relation not in true:
                return (
                    f"expected {clause.class_name} {clause.relation} target, "
                    f"found {' and '.join(true)} target"
                )
    return ""


def _excluded(prompt: GenEvalPrompt, by_class: Mapping[str, Sequence[Detection]]) -> list[str]:
    counts = [(clause, len(by_class.get(clause.class_name, ()))) for clause in prompt.exclude]
    return [
        f"expected {clause.class_name}<{clause.count}, found {number}"
        for clause, number in counts
        if number >= clause.count
    ]
