"""What a step does to the scene graph, as a small drawing: a row for each thing, arcs between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

from staged.scene_graph import Relation, SceneGraph

State = Literal["added", "removed", "changed", "kept"]
MARKS: Final[dict[State, str]] = {"added": "+", "removed": "−", "changed": "~", "kept": ""}
"""What stands before a part, so that nobody needs to tell its colour."""

_ROW_PX, _LANE_PX = 34, 18
_CHAR_PX = 8.6
"""Of 13 pixels of a bold face: what is too wide stands free, what is too narrow is cut off."""
_LONGEST_CHARS: Final = 34
_MOST_THINGS, _MOST_ARCS = 16, 12
"""Beyond it a drawing is no longer read; the words of the step are."""


@dataclass(frozen=True, kw_only=True)
class Marked:
    """A part of the scene, with a mark for what became of it.

    Attributes:
        state: What became of it.
    """

    state: State

    @property
    def mark(self) -> str:
        """What stands before it."""
        return MARKS[self.state]


@dataclass(frozen=True, kw_only=True)
class ThingRow(Marked):
    """A thing: what it is, with its attributes.

    Attributes:
        text: Shortened.
        whole: Not shortened.
        middle: Of its row, in pixels from the top.
        width: Of its box, in pixels.
    """

    text: str
    whole: str
    middle: float
    width: float


@dataclass(frozen=True, kw_only=True)
class Arc(Marked):
    """A relation, from its source to its target.

    Attributes:
        path: Of the line, for SVG.
        text: What the relation is.
        x: Where its words begin, in pixels from the left.
        y: Middle of its words, in pixels from the top.
    """

    path: str
    text: str
    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class GraphDrawing:
    """The scene after a step, and what the step took away.

    Attributes:
        width: In pixels.
        height: In pixels.
        rows: The things.
        arcs: The relations.
        words: What changed, in words, for those who hear the page.
    """

    width: float
    height: float
    rows: Sequence[ThingRow]
    arcs: Sequence[Arc]
    words: str


def graph_drawings(graphs: Any) -> list[GraphDrawing | None]:
    """Draw each of a trajectory's steps.

    Args:
        graphs: The scene after each step, as the provenance of a trajectory has it (`graphs`).

    Returns:
        None in place of what cannot be drawn, or is too much to be read; nothing at all where these
        are no graphs.
    """
    if not isinstance(graphs, list):
        return []
    try:
        scenes = [SceneGraph(), *map(SceneGraph.from_dict, graphs)]
    except ValueError:
        return []
    return [_drawing(before, after) for before, after in pairwise(scenes)]


def _drawing(before: SceneGraph, after: SceneGraph) -> GraphDrawing | None:
    there = {item.id: item for item in (*before.objects, *after.objects)}
    links = sorted(
        {*before.relations, *after.relations}, key=lambda r: (r.source, r.target, r.name)
    )
    if not there or len(there) > _MOST_THINGS or len(links) > _MOST_ARCS:
        return None
    rows: dict[str, ThingRow] = {}
    for number, key in enumerate(there):
        state = _state(before, after, key)
        whole = _said(after if key in after else before, key)
        if state == "changed":
            whole = f"{_said(before, key)} → {whole}"
        text = whole if len(whole) <= _LONGEST_CHARS else f"{whole[: _LONGEST_CHARS - 1]}…"
        rows[key] = ThingRow(
            text=text,
            whole=whole,
            state=state,
            middle=_ROW_PX * (number + 0.5),
            width=_CHAR_PX * len(text) + 36,
        )
    edge = max(row.width for row in rows.values()) + 4
    arcs = [_arc(rows, link, lane, edge, before, after) for lane, link in enumerate(links)]
    said = [f"{row.whole} {row.state}" for row in rows.values() if row.state != "kept"]
    said += [
        f"{rows[link.source].whole} {link.name} {rows[link.target].whole} {arc.state}"
        for link, arc in zip(links, arcs, strict=True)
        if arc.state != "kept"
    ]
    ends = [edge, *(arc.x + _CHAR_PX * (len(arc.text) + 3) for arc in arcs)]
    return GraphDrawing(
        width=round(max(ends)),
        height=_ROW_PX * len(rows),
        rows=list(rows.values()),
        arcs=arcs,
        words="; ".join(said) or "nothing changed",
    )


def _arc(
    rows: dict[str, ThingRow],
    link: Relation,
    lane: int,
    edge: float,
    before: SceneGraph,
    after: SceneGraph,
) -> Arc:
    source, target = rows[link.source], rows[link.target]
    # Lines leave and reach a thing beside one another, and each turns in a lane of its own.
    start, end = source.middle - 4, target.middle + 4
    turn = edge + _LANE_PX * (lane + 1)
    state: State = "kept"
    if link not in before.relations or link not in after.relations:
        state = "added" if link in after.relations else "removed"
    return Arc(
        path=f"M{source.width + 2:g} {start:g} H{turn:g} V{end:g} H{target.width + 4:g}",
        text=link.name,
        state=state,
        x=turn + 6,
        y=(start + end) / 2,
    )


def _state(before: SceneGraph, after: SceneGraph, key: str) -> State:
    if key not in before or key not in after:
        return "added" if key in after else "removed"
    return "kept" if _said(before, key) == _said(after, key) else "changed"


def _said(graph: SceneGraph, key: str) -> str:
    item = graph.object(key)
    alike = [other.id for other in graph.objects if other.class_name == item.class_name]
    number = f" {alike.index(key) + 1}" if len(alike) > 1 else ""
    looks = ", ".join(one.value for one in graph.attributes if one.object == key)
    return f"{item.class_name}{number}{f' ({looks})' if looks else ''}"
