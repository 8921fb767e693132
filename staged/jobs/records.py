"""What the processes of a job have written down, read together: answers, images, ends of units.

    writers         a line for each process that ever wrote, by name
    NAME.jsonl      its records, one a line (`journal`)
    NAME.blobs      bytes of the images it drew, one after another

Only that process appends to its two files, and a record is on the disk before anybody relies on it.
"""

import gc
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from staged import strict_json
from staged.jobs.budget import Spent
from staged.jobs.journal import JournalReader, Span

Status = Literal["accepted", "rejected", "failed"]

FORMAT: Final = "staged-ledger/1"
WRITERS: Final = "writers"
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


@dataclass(frozen=True, kw_only=True)
class CallResult:
    """What came of a call.

    Attributes:
        purpose: What it was for; costs are added up by it.
        paid: Whether it was answered, so that it is never made again.
        usd: What it cost.
        data: The answer, as plain JSON.
        sha256: Of the bytes that came with it, if any did.
        beside: SHA-256 of further bytes that came with those.
    """

    purpose: str
    paid: bool
    usd: float
    data: Mapping[str, Any]
    sha256: str | None = None
    beside: str | None = None


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """The end of one unit of work.

    Attributes:
        status: Whether it became a sample.
        stage: The stage that decided.
        reason: Why it did not; empty for accepted ones.
        detail: What is known of that, such as a service's own sentence; reasons are counted, and
            this is shown.
        sample: What is needed to write the sample, as JSON; None unless there is something.
    """

    status: Status
    stage: str = ""
    reason: str = ""
    detail: str = ""
    sample: dict[str, Any] | None = None


def is_older(folder: Path) -> bool:
    """Say whether an older version of staged, which kept its records in SQLite, wrote a folder."""
    return any(folder.glob("*.sqlite"))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Let the garbage collector rest: an index of millions of records is made, and no cycle.

    It would look at all of them again and again, which took a quarter of the time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class SentTogether(NamedTuple):
    """Calls that were or were to be sent together.

    Attributes:
        name: What we call them.
        number: Under which they were sent; None where that is not known: they may not have been.
        price: Share of its price that each costs; None where an older version sent them.
    """

    name: str
    number: str | None
    price: float | None


class _Held(NamedTuple):
    calls: int
    usd: float


class _Place(NamedTuple):
    writer: str
    span: Span


class _Made(NamedTuple):
    number: int
    round: int
    paid: bool
    purpose: str
    usd: float
    place: _Place


class _End(NamedTuple):
    round: int
    failed: bool
    place: _Place


class Records:
    """The records of all processes, as far as they were read. Changes nothing.

    It keeps an index in memory and reads texts, samples and images when they are wanted.

    Args:
        folder: Of the ledger.

    Raises:
        ValueError: records are damaged or missing, or are those of an older version.
    """

    def __init__(self, folder: Path) -> None:
        """Read everything that is there."""
        if is_older(folder):
            raise ValueError(
                f"{folder}: an older version of staged began this job (its ledger is SQLite), and "
                "this one cannot go on with it; finish it with that version, or write to another "
                "folder"
            )
        self.folder = folder
        self.newest_round = 0
        self.fingerprints: set[str] = set()
        self._readers: dict[str, JournalReader] = {}
        self._made: dict[str, list[_Made]] = {}
        self._ends: dict[int, _End] = {}
        self._blobs: dict[str, _Place] = {}
        self._sending: dict[str, list[tuple[int, str]]] = {}
        self._prices: dict[str, float | None] = {}
        self._held: dict[tuple[str, int], _Held] = {}
        self._sent: dict[str, str] = {}
        self._calls: Counter[str] = Counter()
        self._usd = 0.0
        self._shapes: set[tuple[str | type, ...]] = set()
        with _no_collection():
            self.refresh()

    def refresh(self) -> None:
        """Read what was added since, by whichever process.

        Raises:
            ValueError: a record is damaged.
        """
        for name in self._writers():
            self._read(name)

    @property
    def spent(self) -> Spent:
        """What all processes have spent; calls in flight count."""
        return Spent(usd=self._usd, requests=self._calls["requests"], images=self._calls["images"])

    def results(self) -> Iterator[tuple[int, UnitResult]]:
        """Yield how every unit ended, ordered by unit: the last time, if it was tried again."""
        for unit in sorted(self._ends):
            place = self._ends[unit].place
            record = self._readers[place.writer].at(place.span)
            yield (
                unit,
                UnitResult(
                    status=record["status"],
                    stage=record["stage"],
                    reason=record["reason"],
                    detail=record.get("detail") or "",
                    sample=record.get("sample"),
                ),
            )

    def finished(self, round_: int) -> set[int]:
        """Return the units that need no more work in a round."""
        return {unit for unit, end in self._ends.items() if not end.failed or end.round >= round_}

    def costs(self) -> Mapping[str, Mapping[str, float]]:
        """Return calls and money by purpose; the same for the same calls, whoever made them."""
        costs: dict[str, dict[str, float]] = {}
        for key in sorted(self._made):
            for made in sorted(self._made[key]):
                kept = costs.setdefault(made.purpose, {"calls": 0, "usd": 0.0})
                kept["calls"] += 1
                kept["usd"] += made.usd
        return dict(sorted(costs.items()))

    def sent(self, key: str) -> list[SentTogether]:
        """Return what was or was to be sent together with a call that nothing has come of yet.

        Returns:
            Those first of which it is known that they were sent.
        """
        made = len(self._made.get(key, ()))
        found = [
            SentTogether(name, self._sent.get(name), self._prices[name])
            for number, name in self._sending.get(key, ())
            if number == made
        ]
        return sorted(found, key=lambda sent: sent.number is None)

    def held(self, key: str) -> float | None:
        """Return what is held of the budget for a call that is to be sent with others.

        Returns:
            Money; None where no such call was counted, or something has come of it.
        """
        held = self._held.get((key, len(self._made.get(key, ()))))
        return held.usd if held is not None and held.calls else None

    def blob(self, digest: str) -> bytes:
        """Return bytes by their SHA-256.

        Raises:
            ValueError: no process has them undamaged.
        """
        found = self.find_blob(digest)
        if found is None:
            raise ValueError(f"{self.folder}: no image {digest}; restore the folder's files")
        return found

    def find_blob(self, digest: str) -> bytes | None:
        """Return bytes by their SHA-256; None where they are missing, or not what they were."""
        place = self._blobs.get(digest)
        if place is None:
            return None
        try:
            with (self.folder / f"{place.writer}.blobs").open("rb") as file:
                file.seek(place.span.start)
                data = file.read(place.span.size)
        except FileNotFoundError:
            return None
        return data if hashlib.sha256(data).hexdigest() == digest else None

    def _all_answers(self, key: str) -> Sequence[_Made]:
        return sorted(self._made.get(key, ()))

    def _answer(self, made: _Made) -> CallResult:
        record = self._readers[made.place.writer].at(made.place.span)
        return CallResult(
            purpose=made.purpose,
            paid=made.paid,
            usd=made.usd,
            data=record["data"],
            sha256=record.get("sha256"),
            beside=(record.get("beside") or {}).get("sha256"),
        )

    def _writers(self) -> list[str]:
        """List who writes. From a file, since listings of network folders lag behind."""
        path = self.folder / WRITERS
        if not path.is_file():
            return []
        names = path.read_text(encoding="ascii", errors="replace").split("\n")[:-1]
        for name in names:
            if name not in self._readers and not (self.folder / f"{name}.jsonl").is_file():
                raise ValueError(
                    f"{self.folder / f'{name}.jsonl'} is missing: restore it, or delete its line "
                    f"from {path} to go on; what it recorded is then done and paid for again"
                )
        return names

    def _read(self, name: str) -> None:
        reader = self._readers.setdefault(name, JournalReader(self.folder / f"{name}.jsonl"))
        for span, record in reader.new():
            try:
                self._take(name, span, record)
            except ValueError as error:
                raise ValueError(f"{reader.path}, line {reader.lines}: {error}") from None

    def _take(self, writer: str, span: Span, record: dict[str, Any]) -> None:
        kind = record.pop("kind", None)
        if kind not in _KINDS:
            raise ValueError(f"kind {kind!r:.50}; written by a newer version?")
        # Millions of records have a handful of shapes, and one of a shape says it for all.
        shape = (kind, *record, *map(type, record.values()))
        if shape not in self._shapes:
            strict_json.record(record, kind, _KINDS[kind], _EITHER.get(kind))
            self._shapes.add(shape)
        match kind:
            case "begin":
                if record["format"] != FORMAT:
                    raise ValueError(f"format {record['format']!r:.50} is not {FORMAT}")
                self.fingerprints.add(record["fingerprint"])
                self.newest_round = max(self.newest_round, record["round"])
            case "call":
                self._count(record, 1)
            case "void":
                self._count(record, -1)
            case "answer":
                self._take_answer(_Place(writer, span), record)
            case "result":
                self._take_result(_Place(writer, span), record)
            case "sending":
                self._prices[record["name"]] = record.get("price")
                for key, number in zip(record["keys"], record["numbers"], strict=True):
                    self._sending.setdefault(key, []).append((number, record["name"]))
            case "sent":
                self._sent[record["name"]] = record["number"]

    def _count(self, record: Mapping[str, Any], times: int) -> None:
        self._calls[record["of"]] += times
        self._usd += times * record["usd"]
        if record.get("key") is not None:
            # The journals of several writers come in any order, so these are sums.
            place = record["key"], record["number"]
            calls, usd = self._held.get(place, _Held(0, 0.0))
            self._held[place] = _Held(calls + times, usd + times * record["usd"])

    def _take_answer(self, place: _Place, record: dict[str, Any]) -> None:
        made = _Made(
            record["number"],
            record["round"],
            record["paid"],
            record["purpose"],
            record["usd"],
            place,
        )
        self._made.setdefault(record["key"], []).append(made)
        self._usd += record["usd"] - record["reserved"]
        if record.get("sha256") is not None:
            self._take_blob(place.writer, record)
        if record.get("beside") is not None:
            beside = strict_json.record(record["beside"], "beside", _BLOB)
            self._take_blob(place.writer, beside)

    def _take_blob(self, writer: str, named: Mapping[str, Any]) -> None:
        self._blobs[named["sha256"]] = _Place(writer, Span(named["start"], named["size"]))

    def _take_result(self, place: _Place, record: dict[str, Any]) -> None:
        end = _End(record["round"], record["status"] == "failed", place)
        other = self._ends.get(record["unit"])
        # What did not fail is final; otherwise the newest round's end stands.
        if other is None or (other.failed and (not end.failed or end.round >= other.round)):
            self._ends[record["unit"]] = end
