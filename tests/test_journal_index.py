"""The index beside a journal: it says what the lines say, or it is not believed."""

import asyncio
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from staged.jobs import journal, journal_index
from staged.jobs.journal import Journal, JournalReader
from staged.jobs.ledger import Ledger
from staged.jobs.rank import Rank
from staged.jobs.records import Records
from staged.jobs.results import UnitResult

LINES = 4
ACCEPTED = UnitResult(status="accepted", sample={"text": "é"})
FAILED = UnitResult(status="failed", stage="service", reason="timeout", detail="no reply")
FIRST, INDEX = "00000.jsonl", "00000.index"


@pytest.fixture(autouse=True)
def _short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_index, "LINES", LINES)


def ledger(folder: Path, writer: int = 0) -> Ledger:
    return Ledger(folder, fingerprint="f" * 64, rank=Rank(number=writer, world_size=writer + 1))


async def work(folder: Path, writer: int, units: range) -> None:
    """Leave every kind of record, and units that fail in one round and not in the next."""
    with ledger(folder, writer) as ours:
        for unit in units:
            key = f"key {unit}"
            async with ours.claim(key):
                ours.admit("requests", usd=0.5, key=key)
                ours.withdraw("requests", usd=0.5, key=key)
                ours.admit("requests", usd=0.5)
                await ours.sending(f"batch {unit}", [key, f"other {unit}"], price=0.5)
                await ours.sent_as(f"batch {unit}", str(unit))
                data = {"text": "a red parasol"}
                await ours.record(
                    key, "requests", "test", paid=unit % 2 == 0, usd=0.25, reserved_usd=0.5,
                    data=data, blob=b"picture %d" % unit, beside=b"latents %d" % unit,
                )  # fmt: skip
            await ours.finish(unit, FAILED if unit % 3 == 0 else ACCEPTED)
        ours.retry_failed(units)
        for unit in units[::4]:
            await ours.finish(unit, ACCEPTED)
        ours.refresh()
        assert state(ours) == state(Records(folder)), "what it wrote is what others read"


def filled(folder: Path) -> Path:
    asyncio.run(work(folder, 0, range(9)))
    asyncio.run(work(folder, 1, range(9, 14)))
    return folder


def state(records: Records) -> dict[str, Any]:
    """Everything that records know, and where their readers stand."""
    names = (
        "newest_round", "fingerprints", "_made", "_ends", "_blobs", "_sending", "_prices", "_held",
        "_sent", "_calls", "_usd",
    )  # fmt: skip
    known = {name: getattr(records, name) for name in names}
    places = {name: (one.end, one.lines) for name, one in records._readers.items()}
    return {**known, "places": places, "results": list(records.results())}


def plain(folder: Path) -> dict[str, Any]:
    """What is known without an index."""
    copy = folder.with_name("plain")
    shutil.copytree(folder, copy)
    for path in copy.glob("*.index"):
        path.unlink()
    found = state(Records(copy))
    shutil.rmtree(copy)
    return found


def lines_parsed(monkeypatch: pytest.MonkeyPatch, folder: Path) -> int:
    """How many lines of journals, not of indexes, are parsed when a folder is opened."""
    parsed: list[Path] = []
    parse = journal._parse

    def counting(line: bytes, path: Path, number: int | None = None) -> dict[str, Any]:
        parsed.append(path)
        return parse(line, path, number)

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_parse", counting)
        Records(folder)
    return sum(path.suffix == ".jsonl" for path in parsed)


def test_what_the_index_says_is_what_the_lines_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = filled(tmp_path / "job")
    assert state(Records(folder)) == plain(folder)
    assert lines_parsed(monkeypatch, folder) < 2 * LINES
    shutil.copytree(folder, tmp_path / "without")
    (tmp_path / "without" / INDEX).unlink()
    assert lines_parsed(monkeypatch, tmp_path / "without") > 50


def test_an_index_that_is_missing_is_written_by_the_next_writer(tmp_path: Path) -> None:
    folder = filled(tmp_path / "job")
    path = folder / INDEX
    before = path.read_bytes()
    path.unlink()
    Records(folder)
    assert not path.exists(), "who only reads writes nothing"
    ledger(folder).__exit__()
    after = [record for _, record in JournalReader(path).new()]
    assert path.read_bytes() == before and len(after) > 10


def _without_a_line(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join([*lines[:9], *lines[10:]])


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize("change", [_without_a_line, _cut])
@pytest.mark.parametrize("changed", [FIRST, INDEX])
def test_what_no_longer_fits_is_read_line_by_line_and_indexed_anew(
    tmp_path: Path, change: Callable[[bytes], bytes], changed: str
) -> None:
    folder = filled(tmp_path / "job")
    path = folder / changed
    path.write_bytes(change(path.read_bytes()))
    assert state(Records(folder)) == plain(folder)
    asyncio.run(work(folder, 0, range(20, 23)))
    assert state(Records(folder)) == plain(folder)
    kept = (folder / INDEX).read_bytes()
    (folder / INDEX).unlink()
    ledger(folder).__exit__()
    assert (folder / INDEX).read_bytes() == kept


def test_a_damaged_line_in_an_indexed_stretch_is_named(tmp_path: Path) -> None:
    folder = filled(tmp_path / "job")
    data = bytearray((folder / FIRST).read_bytes())
    lines = data.splitlines(keepends=True)
    for line in (1, 6, 18):
        changed = bytearray(data)
        changed[sum(map(len, lines[: line - 1])) + 40] ^= 1
        (folder / FIRST).write_bytes(changed)
        with pytest.raises(ValueError, match=rf"00000\.jsonl, line {line} is damaged"):
            ledger(folder)


def test_an_index_with_a_bit_turned_anywhere_is_not_believed(tmp_path: Path) -> None:
    folder = filled(tmp_path / "job")
    path, expected = folder / INDEX, plain(folder)
    data = path.read_bytes()
    for place in range(5, len(data), len(data) // 40):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert state(Records(folder)) == expected


def _other_format(record: dict[str, Any]) -> None:
    record["format"] = "staged-ledger-index/2"


def _other_type(record: dict[str, Any]) -> None:
    for row in record["tables"]["counts"]:
        row[2] = str(row[2])


def _longer_rows(record: dict[str, Any]) -> None:
    for row in record["tables"]["counts"]:
        row.append(0)


def _no_rows(record: dict[str, Any]) -> None:
    record["tables"]["counts"] = [1]


def _other_table(record: dict[str, Any]) -> None:
    record["tables"]["more"] = []


def _beyond(record: dict[str, Any]) -> None:
    record["end"] += 2**40


def _later(record: dict[str, Any]) -> None:
    record["start"] += 1


@pytest.mark.parametrize(
    "change", [_other_format, _other_type, _longer_rows, _no_rows, _other_table, _beyond, _later]
)
def test_an_index_of_another_form_is_not_believed(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    folder = filled(tmp_path / "job")
    path = folder / INDEX
    records = [record for _, record in JournalReader(path).new()]
    path.unlink()
    with Journal(path) as forged:
        for record in records:
            change(record)
            forged.append(record)
    assert state(Records(folder)) == plain(folder)


def test_an_index_of_one_job_says_nothing_of_another(tmp_path: Path) -> None:
    one, other = filled(tmp_path / "job"), tmp_path / "other"
    asyncio.run(work(other, 0, range(30, 39)))
    shutil.copy(one / INDEX, other / INDEX)
    assert state(Records(other)) == plain(other)


def test_kills_at_any_moment_leave_an_index_that_says_what_the_lines_say(tmp_path: Path) -> None:
    folder, rng = tmp_path / "job", random.Random(0)
    for begun in range(12):
        child = os.fork()
        if not child:
            try:
                asyncio.run(work(folder, 0, range(1000 * begun, 1000 * (begun + 1))))
            finally:
                os._exit(0)
        length = rng.randrange(20_000 * (begun + 1))
        path = folder / FIRST
        while not path.is_file() or path.stat().st_size < length:
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended by itself"
        os.kill(child, 9)
        os.waitpid(child, 0)
        assert state(Records(folder)) == plain(folder)
    ledger(folder).__exit__()
    indexed = list(journal_index.known_stretches(folder / INDEX, folder / FIRST))
    lines = (folder / FIRST).read_bytes().count(b"\n")
    assert sum(stretch.lines for stretch in indexed) > lines - LINES
    assert json.loads((folder / INDEX).read_bytes().splitlines()[0][17:])["start"] == 0
