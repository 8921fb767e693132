"""What a job has done and paid for, shared by all its processes while they run.

Samples that were accepted, rejected or failed are all final; only an explicit new round tries the
failed ones again, and even that never repeats a call that was answered and paid for.

A process makes a call in four steps: it claims the request, so that no other process asks the same
meanwhile; looks whether one has the answer; is admitted by the budget, which counts the call; and
records what came of it. A process that is killed loses the answers that were in flight, and nothing
else: their calls stay counted, and whoever comes next makes them.
"""

import asyncio
import hashlib
import os
import weakref
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, Self

from staged import strict_json
from staged.jobs import files, journal, locks
from staged.jobs.budget import Budget, Meter, check
from staged.jobs.rank import Rank
from staged.jobs.record_rows import FORMAT
from staged.jobs.records import WRITERS, Records
from staged.jobs.results import CallResult, UnitResult

_LOCK: Final = "lock"
_CLAIMS: Final = "claims"
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.005, 0.5


class Ledger(Records):
    """The ledger of a job, open for writing by one of its processes.

    A process opens a folder once at a time: its claims end when any is closed.

    Args:
        folder: Where the ledgers of the job are; made if need be.
        fingerprint: Of the settings that decide results; a folder holds one.
        rank: Which of the processes that share the job this is.
        budget: Limits of the whole job.

    Attributes:
        round: The round in which this process works.
        usd_here: What this process has spent since it opened the ledger.

    Raises:
        ValueError: the folder holds results of other settings or damaged records, another process
            has the number, or the file system has no locks, or of several processes none that
            reach other machines.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fingerprint: str,
        rank: Rank | None = None,
        budget: Budget | None = None,
    ) -> None:
        """Open, or create."""
        rank = rank or Rank()
        folder.mkdir(parents=True, exist_ok=True)
        if rank.world_size > 1:
            locks.check_reach(folder)
        self._name = f"{rank.number:05d}"
        super().__init__(folder, writer=self._name)
        self._budget, self._fingerprint = budget or Budget(), fingerprint
        self._turns: weakref.WeakValueDictionary[int, asyncio.Lock] = weakref.WeakValueDictionary()
        with ExitStack() as opened:
            self._journal = opened.enter_context(journal.Journal(folder / f"{self._name}.jsonl"))
            self._images = _open(folder / f"{self._name}.blobs", opened)
            self._claims_path = folder / _CLAIMS
            self._claims = _open(self._claims_path, opened)
            self._index: journal.Journal | None = None
            self._flusher = opened.enter_context(ThreadPoolExecutor(1, "flush"))
            self._flushing: asyncio.Future[None] | None = None
            self._appended = self._flushed = 0
            self.usd_here = 0.0
            with self._alone():
                self._register()
                self.refresh()
                self._journal.repair(self._readers[self._name])
                self._ours = self._name
                self._check_settings()
                self.round = max(self.newest_round, 1)
                if not self._readers[self._name].lines:
                    self._begin()
            self._opened = opened.pop_all()
            self._keep_index()

    def __enter__(self) -> Self:
        """Return the ledger."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files and let another process have the number."""
        self._opened.close()

    def retry_failed(self, units: Collection[int]) -> None:
        """Begin a round in which what failed is tried again, unless one is under way.

        One is under way as long as none of this process's units has failed in it: then another
        process of the same run has just begun it.

        Args:
            units: This process's.
        """
        with self._alone():
            self.refresh()
            self.round = self.newest_round
            ends = (self._ends[unit] for unit in units if unit in self._ends)
            if any(end.failed and end.round == self.round for end in ends):
                self.round += 1
                self._begin()

    def begin_round(self) -> None:
        """Begin a round, whatever the last one left: calls that failed may be made again."""
        with self._alone():
            self.refresh()
            self.round = self.newest_round + 1
            self._begin()

    def left(self, units: Collection[int]) -> set[int]:
        """Return the units that need work, in the newest round that any process has begun."""
        self.refresh()
        self.round = self.newest_round
        return set(units) - self.finished(self.round)

    @asynccontextmanager
    async def claim(self, key: str) -> AsyncIterator[None]:
        """Let no task and no other process make the calls of a request meanwhile.

        What others have recorded for it can be seen as soon as it is claimed.
        """
        digest = hashlib.sha256(key.encode()).digest()
        place = int.from_bytes(digest[:8]) >> 2  # offsets in a file are signed
        turn = self._turns.get(place)
        if turn is None:
            turn = self._turns[place] = asyncio.Lock()
        async with turn:
            wait_s = _FIRST_WAIT_S
            while not locks.try_byte(self._claims, self._claims_path, place):
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            try:
                self.refresh()
                yield
            finally:
                locks.free_byte(self._claims, place)

    def answers(self, key: str) -> Sequence[CallResult]:
        """Return what came of a request: all that was paid for, and this round's failures."""
        return [
            self._answer(made)
            for made in self._all_answers(key)
            if made.paid or made.round == self.round
        ]

    def admit(self, meter: Meter, *, usd: float = 0.0, key: str | None = None) -> None:
        """Count one more call, which is made next.

        Args:
            meter: What it is.
            usd: Its price, where it is known before.
            key: Of its request, claimed, where it waits to be sent with others: whoever claims it
                after a kill finds what is `held` for it.

        Raises:
            BudgetError: the budget of the job does not allow it.
        """
        call = {"kind": "call", "of": meter, "usd": usd, **self._attempt(key)}
        if self._budget == Budget():
            self._append(call)
            return
        with self._alone():
            self.refresh()
            check(self._budget, self.spent, meter, usd)
            self._append(call)
            # The next one to count may be on another machine.
            self._flush()

    @contextmanager
    def admitted(self, meter: Meter, *, usd: float = 0.0) -> Iterator[None]:
        """Count a call that is made meanwhile; one that fails counts as nothing.

        One that is cancelled, or that a kill takes, stays counted.

        Args:
            meter: What it is.
            usd: Its price, where it is known before.

        Raises:
            BudgetError: the budget of the job does not allow it.
        """
        self.admit(meter, usd=usd)
        try:
            yield
        except Exception:
            self.withdraw(meter, usd=usd)
            raise

    def withdraw(self, meter: Meter, *, usd: float = 0.0, key: str | None = None) -> None:
        """Take back a call that was admitted, with these, and turned out to cost nothing."""
        self._append({"kind": "void", "of": meter, "usd": usd, **self._attempt(key)})

    def _attempt(self, key: str | None) -> dict[str, Any]:
        return {} if key is None else {"key": key, "number": len(self._all_answers(key))}

    def free(self, meter: Meter, *, usd: float) -> None:
        """Give back what a call was admitted with and did not cost; the call stays counted."""
        if usd:
            # First once more for nothing: a kill in between counts one too many, never too few.
            self._append({"kind": "call", "of": meter, "usd": 0.0})
            self.withdraw(meter, usd=usd)

    async def record(
        self,
        key: str,
        meter: Meter,
        purpose: str,
        *,
        paid: bool,
        usd: float,
        data: Mapping[str, Any],
        reserved_usd: float = 0.0,
        blob: bytes | None = None,
        beside: bytes | None = None,
    ) -> None:
        """Keep what came of a call; it is on the disk when this returns.

        Args:
            key: Of the request, claimed.
            meter: What the call was.
            purpose: What it was for.
            paid: Whether it was answered.
            usd: What it cost.
            data: The answer, as plain JSON.
            reserved_usd: What it was admitted with.
            blob: Bytes that came with it.
            beside: Further bytes that came with those.
        """
        answer = {
            "kind": "answer",
            "of": meter,
            "key": key,
            "purpose": purpose,
            "number": len(self._all_answers(key)),
            "round": self.round,
            "paid": paid,
            "reserved": reserved_usd,
            "usd": usd,
            "data": dict(data),
        }
        if blob is not None:
            answer |= self._kept_bytes(blob)
        if beside is not None:
            answer["beside"] = self._kept_bytes(beside)
        self._append(answer)
        await self._on_disk()

    def _kept_bytes(self, blob: bytes) -> dict[str, Any]:
        start = journal.append(self._images, blob).start
        return {"sha256": hashlib.sha256(blob).hexdigest(), "start": start, "size": len(blob)}

    async def sending(self, name: str, keys: Sequence[str], *, price: float) -> None:
        """Keep that calls are going to be sent together; on the disk when this returns.

        Args:
            name: Of all of them, like no other.
            keys: Of their requests, claimed.
            price: Share of its price that each costs.
        """
        numbers = [len(self._all_answers(key)) for key in keys]
        sending = {"name": name, "keys": list(keys), "numbers": numbers, "price": price}
        self._append({"kind": "sending", **sending})
        await self._on_disk()

    async def sent_as(self, name: str, number: str) -> None:
        """Keep under which number calls were sent; on the disk when this returns."""
        self._append({"kind": "sent", "name": name, "number": number})
        await self._on_disk()

    async def finish(self, unit: int, result: UnitResult) -> None:
        """Keep the end of a unit; it is on the disk when this returns."""
        record = {"kind": "result", "round": self.round, "unit": unit, **vars(result)}
        self._append(record)
        await self._on_disk()

    def _append(self, record: dict[str, Any]) -> None:
        """Add a record, which outlives the process, and once it is flushed the machine."""
        start, line = self._journal.append(record)
        self._appended += 1
        before, reader = self._usd, self._readers[self._name]
        self._take_all(self._name, reader, reader.wrote(start, line))
        self.usd_here += self._usd - before
        self._keep_index()

    def _keep_index(self) -> None:
        """Write down what full stretches of our journal come to, for whoever opens it next."""
        if not self._full_stretches:
            return
        if self._index is None:
            path = self.folder / f"{self._name}.index"
            self._index = self._opened.enter_context(journal.Journal(path))
            self._index.cut(self._index_end)  # what is behind did not fit
        for stretch in self._full_stretches:
            self._index.append(stretch)
        self._full_stretches.clear()

    async def _on_disk(self) -> None:
        """Wait until what was added is on the disk; all who wait at a time share one flush."""
        number = self._appended
        while self._flushed < number:
            if self._flushing is None or self._flushing.done():
                loop = asyncio.get_running_loop()
                self._flushing = loop.run_in_executor(self._flusher, self._flush)
            await asyncio.shield(self._flushing)

    def _flush(self) -> None:
        number = self._appended
        os.fsync(self._images)
        self._journal.flush()
        self._flushed = max(self._flushed, number)

    def _begin(self) -> None:
        begin = {"kind": "begin", "format": FORMAT, "fingerprint": self._fingerprint}
        self._append({**begin, "round": self.round})
        self._flush()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep all other processes of the job out: what is decided here, one decides at a time."""
        with locks.held(self.folder / _LOCK):
            yield

    def _register(self) -> None:
        path = self.folder / WRITERS
        known = path.read_bytes() if path.is_file() else b""
        whole = known[: known.rfind(b"\n") + 1]
        line = f"{self._name}\n".encode()
        if self._name.encode() not in whole.split(b"\n"):
            files.write_whole(path, whole + line)
        files.sweep(self.folder, lambda _: True)

    def _check_settings(self) -> None:
        for found in self.fingerprints - {self._fingerprint}:
            raise ValueError(
                f"{self.folder}: holds results of other settings (fingerprint {found[:12]}, now "
                f"{self._fingerprint[:12]}); write to another folder, or go back to the settings "
                f"in {self.folder.parent / 'settings.yaml'}"
            )


def unit_key(*parts: Any) -> str:
    """Return the SHA-256 (hex) of plain data: the key of a request."""
    return hashlib.sha256(strict_json.dumps(list(parts)).encode()).hexdigest()


def _open(path: Path, opened: ExitStack) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    opened.callback(os.close, file)
    return file
