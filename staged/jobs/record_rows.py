"""What a record of a ledger comes to: rows of the tables that an index keeps (`journal_index`)."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from staged import strict_json
from staged.jobs.journal import Span
from staged.jobs.journal_index import Row

FORMAT: Final = "staged-ledger/1"
_BLOB: Final[Mapping[str, type]] = {"sha256": str, "start": int, "size": int}
_KINDS: Final[Mapping[str, Mapping[str, type]]] = {
    "begin": {"format": str, "fingerprint": str, "round": int},
    "call": {"of": str, "usd": float},
    "void": {"of": str, "usd": float},
    "answer": {
        "of": str,
        "key": str,
        "purpose": str,
        "number": int,
        "round": int,
        "paid": bool,
        "reserved": float,
        "usd": float,
        "data": dict,
    },
    "result": {"round": int, "unit": int, "status": str, "stage": str, "reason": str},
    "sending": {"name": str, "keys": list, "numbers": list},
    "sent": {"name": str, "number": str},
}
_EITHER: Final[Mapping[str, Mapping[str, type]]] = {
    "call": {"key": str, "number": int},
    "void": {"key": str, "number": int},
    "sending": {"price": float},
    "answer": {**_BLOB, "beside": dict},
    "result": {"sample": dict, "detail": str},
}


class RecordRows:
    """Checks records, and tells their rows."""

    def __init__(self) -> None:
        """Begin with no record seen."""
        # Millions of records have a handful of shapes, and one of a shape says it for all.
        self._shapes: set[tuple[str | type, ...]] = set()

    def of(self, span: Span, record: dict[str, Any]) -> Iterator[tuple[str, Row]]:
        """Yield each row of a record, with the name of its table.

        Args:
            span: Where the record stands in its journal.
            record: As it was read; its kind is taken out of it.

        Raises:
            ValueError: it is none that this version writes.
        """
        kind = record.pop("kind", None)
        if kind not in _KINDS:
            raise ValueError(f"kind {kind!r:.50}; written by a newer version?")
        shape = (kind, *record, *map(type, record.values()))
        if shape not in self._shapes:
            strict_json.record(record, kind, _KINDS[kind], _EITHER.get(kind))
            self._shapes.add(shape)
        match kind:
            case "begin":
                if record["format"] != FORMAT:
                    raise ValueError(f"format {record['format']!r:.50} is not {FORMAT}")
                yield "begins", (record["fingerprint"], record["round"])
            case "call":
                yield from _counted(record, 1)
            case "void":
                yield from _counted(record, -1)
            case "answer":
                yield from _answered(span, record)
            case "result":
                yield (
                    "results",
                    (
                        record["unit"],
                        record["round"],
                        record["status"],
                        record["stage"],
                        record["reason"],
                        bool(record.get("detail")),
                        *span,
                    ),
                )
            case "sending":
                price = record.get("price")
                for key, number in zip(record["keys"], record["numbers"], strict=True):
                    yield "sending", (record["name"], key, number, price)
            case "sent":
                yield "sent", (record["name"], record["number"])


def _counted(record: Mapping[str, Any], times: int) -> Iterator[tuple[str, Row]]:
    usd = times * record["usd"]
    yield "counts", (record["of"], times, usd)
    if record.get("key") is not None:
        yield "held", (record["key"], record["number"], times, usd)


def _answered(span: Span, record: Mapping[str, Any]) -> Iterator[tuple[str, Row]]:
    yield (
        "answers",
        (
            record["key"],
            record["number"],
            record["round"],
            record["paid"],
            record["purpose"],
            record["usd"],
            *span,
        ),
    )
    yield "counts", (record["of"], 0, record["usd"] - record["reserved"])
    if record.get("sha256") is not None:
        yield _blob(record)
    if record.get("beside") is not None:
        yield _blob(strict_json.record(record["beside"], "beside", _BLOB))


def _blob(named: Mapping[str, Any]) -> tuple[str, Row]:
    return "blobs", (named["sha256"], named["start"], named["size"])
