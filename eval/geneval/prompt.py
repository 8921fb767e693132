"""What a GenEval prompt asks for: its record in the prompt file, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.geneval.names import COLORS, RELATIONS, TASKS
from staged import strict_json

MAX_CLAUSES = 16
MAX_COUNT = 1000


@dataclass(frozen=True, kw_only=True)
class Include:
    """Objects that must be there.

    Attributes:
        class_name: Their class.
        count: At least so many; only so many, the best-scored, are looked at further.
        color: The colour that all of these must have.
        relation: Where all of these must be, seen from every object of `target`.
        target: Index of an earlier clause; together with `relation` or not at all.
    """

    class_name: str
    count: int
    color: str | None = None
    relation: str | None = None
    target: int | None = None


@dataclass(frozen=True, kw_only=True)
class Exclude:
    """Objects of which there must be fewer than `count`."""

    class_name: str
    count: int


@dataclass(frozen=True, kw_only=True)
class GenEvalPrompt:
    """One record of the prompt file.

    Attributes:
        tag: The task.
        text: What the generator is asked to draw.
        include: All must hold.
        exclude: None may fail.
    """

    tag: str
    text: str
    include: tuple[Include, ...]
    exclude: tuple[Exclude, ...] = ()

    @property
    def class_names(self) -> frozenset[str]:
        """Return the classes that it speaks of."""
        clauses: tuple[Include | Exclude, ...] = (*self.include, *self.exclude)
        return frozenset(clause.class_name for clause in clauses)

    def as_dict(self) -> dict[str, Any]:
        """Return the record in the reference's form, for `metadata.jsonl`."""
        include: list[dict[str, Any]] = []
        for clause in self.include:
            record: dict[str, Any] = {"class": clause.class_name, "count": clause.count}
            if clause.color is not None:
                record["color"] = clause.color
            if clause.relation is not None:
                record["position"] = [clause.relation, clause.target]
            include.append(record)
        exclude = [{"class": clause.class_name, "count": clause.count} for clause in self.exclude]
        return {
            "tag": self.tag,
            "include": include,
            **({"exclude": exclude} if exclude else {}),
            "prompt": self.text,
        }


def parse_prompt(value: Any, place: str) -> GenEvalPrompt:
    """Check one record; keys that others added (`id`, `seed`) are passed over.

    Args:
        value: Decoded JSON: `{tag, include, exclude?, prompt}`.
        place: Where it stands, for errors.

    Raises:
        ValueError: anything is missing, unknown or out of range.
    """
    record = strict_json.record(
        value, place, {"tag": str, "include": list, "prompt": str}, {"exclude": list}, others=True
    )
    if record["tag"] not in TASKS:
        raise ValueError(f"{place}.tag: {record['tag']!r:.40}; expected one of {', '.join(TASKS)}")
    if not record["include"]:
        raise ValueError(f"{place}.include: empty; a prompt must ask for something")
    excluded = record.get("exclude") or []
    if max(len(record["include"]), len(excluded)) > MAX_CLAUSES:
        raise ValueError(f"{place}: more than {MAX_CLAUSES} clauses")
    return GenEvalPrompt(
        tag=record["tag"],
        text=strict_json.unicode_text(record["prompt"], f"{place}.prompt"),
        include=tuple(
            _include(clause, index, f"{place}.include[{index}]")
            for index, clause in enumerate(record["include"])
        ),
        exclude=tuple(
            Exclude(**_object(clause, f"{place}.exclude[{index}]", {}))
            for index, clause in enumerate(excluded)
        ),
    )


def _include(value: Any, index: int, place: str) -> Include:
    fields = _object(value, place, {"color": str, "position": list})
    color, position = value.get("color"), value.get("position")
    if color is not None and color not in COLORS:
        raise ValueError(f"{place}.color: {color!r:.40}; expected one of {', '.join(COLORS)}")
    if position is None:
        return Include(**fields, color=color)
    if len(position) != 2 or position[0] not in RELATIONS:
        raise ValueError(
            f"{place}.position: {position!r:.60}; expected [relation, index of a clause], the "
            f"relation one of {', '.join(RELATIONS)}"
        )
    if type(position[1]) is not int or not 0 <= position[1] < index:
        raise ValueError(
            f"{place}.position: target {position[1]!r:.40}; expected the index of an earlier "
            f"clause, below {index}"
        )
    return Include(**fields, color=color, relation=position[0], target=position[1])


def _object(value: Any, place: str, optional: Mapping[str, type]) -> dict[str, Any]:
    record = strict_json.record(value, place, {"class": str, "count": int}, optional)
    if not record["class"]:
        raise ValueError(f"{place}.class: empty")
    if not 1 <= record["count"] <= MAX_COUNT:
        raise ValueError(f"{place}.count: {record['count']}; expected 1 to {MAX_COUNT}")
    return {"class_name": record["class"], "count": record["count"]}
