"""The ledger of a job: what outlives a kill, what is refused, and what several processes share."""

import asyncio
import json
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from staged.backends.lmm.kept import kept_answers
from staged.jobs import locks
from staged.jobs.budget import Budget, BudgetError, Spent, check
from staged.jobs.journal import Journal, JournalReader
from staged.jobs.ledger import Ledger
from staged.jobs.rank import Rank
from staged.jobs.records import Records
from staged.jobs.results import UnitResult

ACCEPTED = UnitResult(status="accepted", sample={"text": "é"})
FAILED = UnitResult(status="failed", stage="service", reason="timeout")


def ledger(folder: Path, writer: int = 0, budget: Budget | None = None) -> Ledger:
    rank = Rank(number=writer, world_size=writer + 1)
    return Ledger(folder, fingerprint="f" * 64, rank=rank, budget=budget)


async def call(to: Ledger, key: str, text: str, *, paid: bool = True, usd: float = 0.0) -> None:
    async with to.claim(key):
        to.admit("requests")
        await to.record(key, "requests", "test", paid=paid, usd=usd, data={"text": text})


async def draw(to: Ledger, key: str, data: bytes) -> None:
    to.admit("images", usd=0.5)
    await to.record(
        key, "images", "images", paid=True, usd=0.5, reserved_usd=0.5, data={}, blob=data
    )


def texts(of: Ledger, key: str) -> list[str]:
    return [answer.data["text"] for answer in of.answers(key)]


def fill(folder: Path) -> None:
    async def work() -> None:
        with ledger(folder) as ours:
            await call(ours, "a", "one", usd=0.25)
            await draw(ours, "b", b"picture")
            await ours.finish(0, ACCEPTED)
            await ours.finish(1, FAILED)

    asyncio.run(work())


def test_what_one_process_wrote_another_reads(tmp_path: Path) -> None:
    fill(tmp_path)
    with ledger(tmp_path, writer=1) as ours:
        assert texts(ours, "a") == ["one"]
        (drawn,) = ours.answers("b")
        assert drawn.sha256 and ours.blob(drawn.sha256) == b"picture"
        assert list(ours.results()) == [(0, ACCEPTED), (1, FAILED)]
        assert ours.left(range(3)) == {2}
        assert ours.spent == Spent(usd=0.75, requests=1, images=1)


def test_a_ledger_cut_at_any_byte_is_read_up_to_there_and_written_on(tmp_path: Path) -> None:
    fill(tmp_path / "whole")
    data = (tmp_path / "whole" / "00000.jsonl").read_bytes()
    folder = tmp_path / "cut"
    for length in range(0, len(data), 7):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", folder)
        os.truncate(folder / "00000.jsonl", length)
        lines = data[:length].count(b"\n")
        with ledger(folder) as ours:
            asyncio.run(ours.finish(7, FAILED))
        reader = JournalReader(folder / "00000.jsonl")
        kinds = [record["kind"] for _, record in reader.new()]
        whole = ["begin", "call", "answer", "call", "answer", "result", "result"]
        assert kinds == [*(whole[:lines] or ["begin"]), "result"]


@pytest.mark.parametrize("line", [1, 3, 7])
def test_a_damaged_line_is_named_with_the_way_out(tmp_path: Path, line: int) -> None:
    fill(tmp_path)
    path = tmp_path / "00000.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    middle = len(lines[line - 1]) // 2
    changed = bytearray(lines[line - 1])
    changed[middle] ^= 1
    path.write_bytes(b"".join([*lines[: line - 1], changed, *lines[line:]]))
    with pytest.raises(
        ValueError, match=rf"00000\.jsonl, line {line} is damaged.*delete that line"
    ):
        ledger(tmp_path)
    path.write_bytes(b"".join([*lines[: line - 1], *lines[line:]]))
    ledger(tmp_path).__exit__()


def test_a_record_that_another_machine_is_writing_is_waited_for(tmp_path: Path) -> None:
    fill(tmp_path)
    path = tmp_path / "00000.jsonl"
    data = path.read_bytes()
    last = data.rindex(b"\n", 0, -1) + 1
    # Its pages may come in any order: a hole first, then the end.
    path.write_bytes(data[:last] + bytes(len(data) - last - 9) + data[-9:])
    records = Records(tmp_path)
    assert records.finished(1) == {0}
    path.write_bytes(data)
    records.refresh()
    assert records.finished(1) == {0, 1}


def test_a_missing_file_and_an_older_ledger_are_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "00000.jsonl").unlink()
    with pytest.raises(ValueError, match=r"00000\.jsonl is missing: restore it, or delete"):
        ledger(tmp_path, writer=1)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "00000.sqlite").write_bytes(b"SQLite format 3\0")
    with pytest.raises(ValueError, match="older version of staged began this job"):
        ledger(tmp_path / "old")


def test_a_lost_image_is_to_be_drawn_again(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "00000.blobs").write_bytes(b"pict")
    with ledger(tmp_path) as ours:
        (drawn,) = ours.answers("b")
        assert drawn.sha256 and ours.find_blob(drawn.sha256) is None
        with pytest.raises(ValueError, match="restore the folder's files"):
            ours.blob(drawn.sha256)
        asyncio.run(draw(ours, "b", b"picture"))
        assert ours.blob(drawn.sha256) == b"picture"


def test_failures_are_tried_again_in_a_new_round_and_what_was_paid_for_is_not(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        with ledger(tmp_path, 0) as first, ledger(tmp_path, 1) as second:
            await call(first, "a", "timeout", paid=False)
            await call(first, "a", "answer")
            await call(first, "b", "timeout", paid=False)
            assert texts(first, "a") == ["timeout", "answer"]
            for unit, of in ((0, first), (1, second)):
                await of.finish(unit, FAILED)
            # Both processes are told to try again; together they begin one round.
            first.retry_failed([0, 2])
            second.retry_failed([1, 3])
            assert first.round == second.round == 2
            assert texts(first, "a") == ["answer"] and texts(first, "b") == []
            await first.finish(0, FAILED)
            assert first.left(range(2)) == {1}
            await second.finish(1, ACCEPTED)
            assert first.left(range(2)) == set()
            # Its own unit failed again: a third round, which the other joins.
            first.retry_failed([0])
            assert second.left([0, 1]) == {0} and second.round == 3
            await second.finish(0, ACCEPTED)
            assert [result.status for _, result in first.results()] == ["failed", "accepted"]
            first.refresh()
            assert [result.status for _, result in first.results()] == ["accepted"] * 2

    asyncio.run(work())


def _hammer(folder: Path, writer: int, limit: int) -> None:
    async def one(ours: Ledger, key: str) -> None:
        if not ours.answers(key):
            async with ours.claim(key):
                if not ours.answers(key):
                    ours.admit("requests")
                    await asyncio.sleep(0.001)
                    await ours.record(
                        key, "requests", "test", paid=True, usd=0.0, data={"writer": writer}
                    )

    async def work() -> None:
        with ledger(folder, writer, Budget(requests=limit)) as ours:
            keys = [f"k{(number * (writer + 1)) % 20}" for number in range(60)]
            await asyncio.gather(*(one(ours, key) for key in keys), return_exceptions=True)

    asyncio.run(work())


@pytest.mark.parametrize(("limit", "made"), [(100, 20), (13, 13)])
def test_processes_that_want_the_same_make_each_call_once(
    tmp_path: Path, limit: int, made: int
) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_hammer, args=(tmp_path, w, limit)) for w in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    records = Records(tmp_path)
    assert records.spent.requests == made
    assert records.costs()["test"]["calls"] == made


def test_a_call_that_a_kill_took_stays_counted(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        ours = ledger(tmp_path, 0, Budget(requests=2))
        ours.admit("requests")
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    with ledger(tmp_path, 1, Budget(requests=2)) as ours:
        ours.admit("requests")
        with pytest.raises(BudgetError, match=r"budget\.requests: 2 of 2"):
            ours.admit("requests")


def test_a_claim_ends_with_its_process_and_what_it_recorded_is_seen(tmp_path: Path) -> None:
    async def other(recorded: int) -> None:
        with ledger(tmp_path, 1) as theirs:
            await call(theirs, "a", "one")
            async with theirs.claim("b"):
                os.write(recorded, b"!")
                await asyncio.sleep(60)

    async def work(child: int, recorded: int) -> None:
        with ledger(tmp_path, 0) as ours:
            os.write(ready_write, b"!")
            os.read(recorded, 1)  # the other has begun after us, and holds "b"
            async with ours.claim("a"):
                assert texts(ours, "a") == ["one"]
            waiting = asyncio.ensure_future(call(ours, "b", "two"))
            done, _ = await asyncio.wait([waiting], timeout=0.3)
            assert not done and texts(ours, "b") == []
            os.kill(child, 9)
            await waiting
            assert texts(ours, "b") == ["two"]

    read, write = os.pipe()
    ready_read, ready_write = os.pipe()
    child = os.fork()
    if not child:
        os.read(ready_read, 1)
        asyncio.run(other(write))
        os._exit(0)
    asyncio.run(work(child, read))
    os.waitpid(child, 0)


def test_an_image_that_could_not_be_drawn_costs_nothing(tmp_path: Path) -> None:
    with ledger(tmp_path, 0, Budget(images=1, usd=0.1)) as ours:
        ours.admit("images", usd=0.1)
        ours.withdraw("images", usd=0.1)
        ours.admit("images", usd=0.1)
        with pytest.raises(BudgetError, match=r"budget\.images: 1 of 1"):
            ours.admit("images", usd=0.1)


def test_a_budget_of_money_takes_prices_as_people_write_them() -> None:
    budget = Budget(usd=0.3)
    check(budget, Spent(usd=0.1 + 0.1), "images", 0.1)
    with pytest.raises(BudgetError, match=r"0\.3 of 0\.3"):
        check(budget, Spent(usd=0.1 * 3), "images", 0.1)
    with pytest.raises(BudgetError, match=r"the next call may cost 0\.2"):
        check(budget, Spent(usd=0.2), "images", 0.2)


def test_a_full_disk_leaves_the_records_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ledger(tmp_path) as ours:
        asyncio.run(call(ours, "a", "one"))
        before = (tmp_path / "00000.jsonl").read_bytes()
        write = os.write

        def full(file: int, data: memoryview) -> int:
            monkeypatch.undo()
            write(file, data[:5])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            asyncio.run(ours.finish(0, ACCEPTED))
        assert (tmp_path / "00000.jsonl").read_bytes() == before
        asyncio.run(ours.finish(0, ACCEPTED))
    assert list(Records(tmp_path).results()) == [(0, ACCEPTED)]


@pytest.mark.parametrize(
    "text",
    ["\u2028\x00\x1f\n😀", -0.0, 0.1 + 0.2, 5e-324, 2**70, json.loads("[" * 300 + "]" * 300)],
)
def test_what_is_written_is_read_as_it_was(tmp_path: Path, text: Any) -> None:
    with Journal(tmp_path / "j") as ours:
        ours.append({"text": text})
    (kept,) = (record["text"] for _, record in JournalReader(tmp_path / "j").new())
    assert repr(kept) == repr(text)


def test_a_record_that_could_not_be_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("staged.jobs.journal.MAX_LINE_BYTES", 60)
    with Journal(tmp_path / "j") as ours:
        ours.append({"text": "x" * 30})
        with pytest.raises(ValueError, match="too long to be read"):
            ours.append({"text": "x" * 32})
    assert [record["text"] for _, record in JournalReader(tmp_path / "j").new()] == ["x" * 30]


def test_one_process_at_a_time_has_a_number(tmp_path: Path) -> None:
    with Journal(tmp_path / "j"), pytest.raises(ValueError, match="its own rank"):
        Journal(tmp_path / "j")
    Journal(tmp_path / "j").close()


@pytest.mark.parametrize(
    ("kind", "options", "refused"),
    [
        ("nfs4", "rw,vers=4.2,local_lock=none", False),
        ("nfs", "rw,vers=3,nolock,local_lock=all", True),
        ("lustre", "rw,flock", False),
        ("lustre", "rw,localflock", True),
        ("lustre", "rw", True),
        ("ext4", "rw,relatime", False),
    ],
)
def test_locks_that_end_at_the_machine_are_not_trusted(
    tmp_path: Path, kind: str, options: str, refused: bool
) -> None:
    shared = tmp_path / "a job"
    shared.mkdir()
    mounts = tmp_path / "mounts"
    point = str(tmp_path.resolve()).replace(" ", r"\040")
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {point} {kind} {options} 0 0\n")
    if refused:
        with pytest.raises(ValueError, match="cannot share a job there"):
            locks.check_reach(shared, mounts)
    else:
        locks.check_reach(shared, mounts)


def test_every_ledger_of_several_processes_needs_locks_that_reach_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept answers of evaluations were shared where locks reach one machine alone."""

    def refuse(folder: Path) -> None:
        raise ValueError(f"{folder}: no locks reach others")

    monkeypatch.setattr(locks, "check_reach", refuse)
    with kept_answers(tmp_path / "one.jsonl", usd=None, rank=Rank()):
        pass
    with (
        pytest.raises(ValueError, match="no locks reach others"),
        kept_answers(tmp_path / "two.jsonl", usd=None, rank=Rank(number=0, world_size=2)),
    ):
        pass
