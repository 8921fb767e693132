"""What the processes of a job have written down, read together: answers, images, ends of units.

    writers         a line for each process that ever wrote, by name
    NAME.jsonl      its records, one a line (`journal`)
    NAME.blobs      bytes of the images it drew, one after another
    NAME.index      what its records come to, for whoever opens the folder next (`journal_index`)

Only that process appends to its files, and a record is on the disk before anybody relies on it.
"""

import gc
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from staged.jobs.budget import Spent
from staged.jobs.journal import JournalReader, Span
from staged.jobs.journal_index import Row, Stretch, known_stretches, new_digest
from staged.jobs.record_rows import RecordRows
from staged.jobs.results import CallResult, Status, UnitResult

WRITERS: Final = "writers"


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
    start: int
    size: int


class _Made(NamedTuple):
    number: int
    round: int
    paid: bool
    purpose: str
    usd: float
    place: _Place


class UnitEnd(NamedTuple):
    """How a unit ended, without what is read from the disk when it is wanted.

    Attributes:
        round: In which it was tried.
        status: As in `UnitResult`.
        stage: As in `UnitResult`.
        reason: As in `UnitResult`.
        has_detail: Whether more is known of that.
        place: Where the record stands.
    """

    round: int
    status: Status
    stage: str
    reason: str
    has_detail: bool
    place: _Place

    @property
    def failed(self) -> bool:
        """Whether a later round tries again."""
        return self.status == "failed"


class Records:
    """The records of all processes, as far as they were read. Changes nothing.

    It keeps an index in memory and reads texts, samples and images when they are wanted.

    Args:
        folder: Of the ledger.
        writer: Name of the process that is going to write, whose index is to be kept; None for
            one that only reads.

    Raises:
        ValueError: records are damaged or missing, or are those of an older version.
    """

    def __init__(self, folder: Path, *, writer: str | None = None) -> None:
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
        self._writers_path = folder / WRITERS
        self._writers_listed = b""
        self._names: list[str] = []
        self._ours: str | None = None
        """Whose journal nobody but this process adds to."""
        self._made: dict[str, list[_Made]] = {}
        self._ends: dict[int, UnitEnd] = {}
        self._blobs: dict[str, _Place] = {}
        self._sending: dict[str, list[tuple[int, str]]] = {}
        self._prices: dict[str, float | None] = {}
        self._held: dict[tuple[str, int], _Held] = {}
        self._sent: dict[str, str] = {}
        self._calls: Counter[str] = Counter()
        self._usd = 0.0
        self._rows = RecordRows()
        self._writer = writer
        self._stretch: Stretch | None = None
        self._full_stretches: list[dict[str, Any]] = []
        self._index_end = 0
        with _no_collection():
            self.refresh()

    def refresh(self) -> None:
        """Read what was added since, by whichever process.

        Raises:
            ValueError: a record is damaged.
        """
        for name in self._writers():
            if name != self._ours:
                self._read(name)

    @property
    def spent(self) -> Spent:
        """What all processes have spent; calls in flight count."""
        return Spent(usd=self._usd, requests=self._calls["requests"], images=self._calls["images"])

    def results(self) -> Iterator[tuple[int, UnitResult]]:
        """Yield how every unit ended, ordered by unit: the last time, if it was tried again."""
        with ExitStack() as opened:
            journals: dict[str, BinaryIO] = {}
            for unit in sorted(self._ends):
                writer = self._ends[unit].place.writer
                if writer not in journals:
                    path = self._readers[writer].path
                    journals[writer] = opened.enter_context(path.open("rb"))
                yield unit, self.result(unit, journals[writer])

    def result(self, unit: int, journal: BinaryIO | None = None) -> UnitResult:
        """Return how a unit ended.

        Args:
            unit: One that has.
            journal: The file that holds its record, open, for whoever reads many.

        Raises:
            ValueError: its record is no longer what it was.
        """
        place = self._ends[unit].place
        record = self._readers[place.writer].at(Span(place.start, place.size), journal)
        return UnitResult(
            status=record["status"],
            stage=record["stage"],
            reason=record["reason"],
            detail=record.get("detail") or "",
            sample=record.get("sample"),
        )

    def ends(self) -> Iterator[tuple[int, UnitEnd]]:
        """Yield how every unit ended, as `results`, but for what takes reading from the disk."""
        for unit in sorted(self._ends):
            yield unit, self._ends[unit]

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
                file.seek(place.start)
                data = file.read(place.size)
        except FileNotFoundError:
            return None
        return data if hashlib.sha256(data).hexdigest() == digest else None

    def _all_answers(self, key: str) -> Sequence[_Made]:
        return sorted(self._made.get(key, ()))

    def _answer(self, made: _Made) -> CallResult:
        writer, start, size = made.place
        record = self._readers[writer].at(Span(start, size))
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
        path = self._writers_path
        try:
            # Opened anew each time: so a network file system shows what others have written.
            with path.open("rb", buffering=0) as file:
                listed = file.read()
        except FileNotFoundError:
            return []
        if listed == self._writers_listed:
            return self._names
        names = listed.decode("ascii", errors="replace").split("\n")[:-1]
        for name in names:
            if name not in self._readers and not (self.folder / f"{name}.jsonl").is_file():
                raise ValueError(
                    f"{self.folder / f'{name}.jsonl'} is missing: restore it, or delete its line "
                    f"from {path} to go on; what it recorded is then done and paid for again"
                )
        self._writers_listed, self._names = listed, names
        return names

    def _read(self, name: str) -> None:
        reader = self._readers.get(name)
        if reader is None:
            reader = self._readers[name] = self._known(name)
        self._take_all(name, reader, reader.new())

    def _take_all(
        self, name: str, reader: JournalReader, records: Iterable[tuple[Span, dict[str, Any]]]
    ) -> None:
        for span, record in records:
            try:
                self._take(name, span, record)
            except ValueError as error:
                raise ValueError(f"{reader.path}, line {reader.lines}: {error}") from None
            if self._stretch is not None and name == self._writer:
                self._count_line(self._stretch, reader)

    def _known(self, name: str) -> JournalReader:
        """Take what the index of a journal has, and return a reader of what is behind that."""
        path = self.folder / f"{name}.jsonl"
        reader = JournalReader(path)
        for stretch in known_stretches(self.folder / f"{name}.index", path):
            for table, rows in stretch.tables.items():
                self._fill(name, table, rows)
            reader.skip(stretch.end, stretch.lines)
            if name == self._writer:
                self._index_end = stretch.index_end
        if name == self._writer:
            self._stretch, reader.digest = Stretch(reader.end), new_digest()
        return reader

    def _count_line(self, stretch: Stretch, reader: JournalReader) -> None:
        stretch.lines += 1
        if stretch.is_full(reader.end):
            assert reader.digest is not None  # it is our journal
            full = stretch.record(end=reader.end, digest=reader.digest.hexdigest())
            self._full_stretches.append(full)
            self._stretch, reader.digest = Stretch(reader.end), new_digest()

    def _take(self, writer: str, span: Span, record: dict[str, Any]) -> None:
        for table, row in self._rows.of(span, record):
            self._put(writer, table, row)

    def _put(self, writer: str, table: str, row: Row) -> None:
        self._fill(writer, table, (row,))
        if self._stretch is not None and writer == self._writer:
            self._stretch.add(table, row)

    def _fill(self, writer: str, table: str, rows: Iterable[Row]) -> None:
        """Take rows of a table of `journal_index.TABLES` into the index."""
        match table:
            case "begins":
                for fingerprint, round_ in rows:
                    self.fingerprints.add(fingerprint)
                    self.newest_round = max(self.newest_round, round_)
            case "counts":
                for meter, calls, usd in rows:
                    self._calls[meter] += calls
                    self._usd += usd
            case "held":
                for key, number, calls, usd in rows:
                    # The journals of several writers come in any order, so these are sums.
                    held = self._held.get((key, number), _Held(0, 0.0))
                    self._held[key, number] = _Held(held.calls + calls, held.usd + usd)
            case "answers":
                for key, number, round_, paid, purpose, usd, start, size in rows:
                    place = _Place(writer, start, size)
                    made = _Made(number, round_, paid, purpose, usd, place)
                    self._made.setdefault(key, []).append(made)
            case "blobs":
                for sha256, start, size in rows:
                    self._blobs[sha256] = _Place(writer, start, size)
            case "results":
                for unit, round_, status, stage, reason, has_detail, start, size in rows:
                    place = _Place(writer, start, size)
                    end = UnitEnd(round_, status, stage, reason, has_detail, place)
                    self._take_end(unit, end)
            case "sending":
                for name, key, number, price in rows:
                    self._prices[name] = price
                    self._sending.setdefault(key, []).append((number, name))
            case "sent":
                for name, number in rows:
                    self._sent[name] = number

    def _take_end(self, unit: int, end: UnitEnd) -> None:
        other = self._ends.get(unit)
        # What did not fail is final; otherwise the newest round's end stands.
        if other is None or (other.failed and (not end.failed or end.round >= other.round)):
            self._ends[unit] = end
