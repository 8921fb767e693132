"""What a server remembers: whatever kills it, whoever asks."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from staged.images import encode_png
from staged.server.feed import FeedEvent
from staged.server.history import History
from staged.server.pictures import picture_name
from staged.server.record import COMPLETE, HistoryRecord
from staged.trajectory import Trajectory

START = Trajectory(prompt="a star").to_dict()
RECORD = HistoryRecord(
    id="t1",
    client="ann",
    kind="trajectory",
    created_s=100.0,
    start=START,
    words="A star!",
    seed=3,
    asked={"max_rounds": 2},
)


def png(seed: int) -> bytes:
    return encode_png(tiny.picture(seed))


def event(number: int, name: str = "plan") -> FeedEvent:
    return FeedEvent(id=number, name=name, data={"index": number, "text": "é"})


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "home", max_kept=5) as history:
        yield history


def test_it_gives_back_what_it_was_given(history: History) -> None:
    history.add(RECORD)
    for number in (1, 2, 3):
        history.tell("t1", event(number))
    assert history.find("t1") == RECORD and history.find("t2") is None
    assert history.events("t1") == [event(1), event(2), event(3)]
    assert history.events("t1", after=2) == [event(3)]
    history.tell("t1", event(4, "stop"), status=COMPLETE)
    assert history.find("t1") == replace(RECORD, status=COMPLETE)


def test_a_number_is_given_once(history: History) -> None:
    history.add(RECORD)
    history.tell("t1", event(1))
    with pytest.raises(sqlite3.IntegrityError):
        history.tell("t1", event(1), status=COMPLETE)
    found = history.find("t1")
    assert found is not None and found.status == "running"
    history.tell("t1", event(2))


def test_clients_find_their_own_by_words_newest_first(history: History) -> None:
    for number in range(4):
        words = f"{'a 100% red' if number % 2 else 'a blue'} star"
        history.add(replace(RECORD, id=f"t{number}", created_s=100.0 + number, words=words))
    history.add(replace(RECORD, id="other", client="bob"))
    assert [r.id for r in history.newest("ann", limit=9)] == ["t3", "t2", "t1", "t0"]
    assert [r.id for r in history.newest("ann", limit=2)] == ["t3", "t2"]
    assert [r.id for r in history.newest("ann", limit=9, before_s=102.0)] == ["t1", "t0"]
    assert [r.id for r in history.newest("ann", limit=9, words="RED")] == ["t3", "t1"]
    assert [r.id for r in history.newest("ann", limit=9, words="0%")] == ["t3", "t1"]
    assert history.newest("ann", limit=9, words="_") == []
    assert [r.id for r in history.newest("bob", limit=9)] == ["other"]


def test_a_picture_is_kept_once_and_goes_with_the_last_that_has_it(history: History) -> None:
    history.add(RECORD, [png(1)])
    history.add(replace(RECORD, id="t2"))
    name = history.keep_picture("t2", png(1))
    assert name == picture_name(png(1)) and history.picture(name) == png(1)
    files = [path for path in (history.home / "pictures").rglob("*") if path.is_file()]
    assert [path.name for path in files] == [name]
    history.delete("t1")
    assert history.picture(name) == png(1)
    history.delete("t2")
    with pytest.raises(ValueError, match=name):
        history.picture(name)


def test_the_oldest_that_have_ended_make_room(history: History) -> None:
    for number in range(5):
        record = replace(RECORD, id=f"t{number}", created_s=float(number))
        history.add(record, [png(number)])
        if number != 1:
            history.tell(record.id, event(1, "stop"), status=COMPLETE)
    for number in (5, 6):
        history.add(replace(RECORD, id=f"t{number}", created_s=float(number)))
    assert {r.id for r in history.newest("ann", limit=9)} == {"t1", "t3", "t4", "t5", "t6"}
    with pytest.raises(ValueError, match=r"\.png"):
        history.picture(picture_name(png(0)))


def test_only_one_server_has_it(history: History) -> None:
    with pytest.raises(ValueError, match="another server keeps its history in"):
        History(history.home, max_kept=5).__enter__()


def test_one_of_another_version_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "history.db")
    database.execute("PRAGMA user_version = 77")
    database.close()
    with pytest.raises(ValueError, match="is of version 77, this server writes 1"):
        History(tmp_path, max_kept=5).__enter__()


def test_the_secret_stays_and_is_nobody_elses(tmp_path: Path) -> None:
    with History(tmp_path, max_kept=5) as history:
        secret = history.secret
        assert len(secret) == 32 and (tmp_path / "secret").stat().st_mode & 0o077 == 0
    with History(tmp_path, max_kept=5) as history:
        assert history.secret == secret
    (tmp_path / "secret").write_bytes(b"half")
    with History(tmp_path, max_kept=5) as history:
        assert len(history.secret) == 32


KILLED = """
import os, signal, sys
from pathlib import Path
import test_history as t
history = t.History(Path(sys.argv[1]), max_kept=99).__enter__()
history.add(t.RECORD)
for number in range(1, 6):
    name = history.keep_picture("t1", t.png(number))
    history.tell("t1", t.FeedEvent(id=number, name="sketch", data={"name": name}))
(history.home / "pictures" / name[:2] / f".x.png.{'0' * 8}-1-1.tmp").write_bytes(b"half")
history._pictures.write(t.png(77))  # written, and not told of
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_whatever_kills_it_costs_nothing_that_was_told(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=Path(__file__).parent)
    assert done.returncode == -9
    with History(tmp_path, max_kept=5) as history:
        found = history.find("t1")
        assert found is not None and (found.status, found.reason) == ("failed", "interrupted")
        *sketches, end = history.events("t1")
        assert [e.id for e in sketches] == [1, 2, 3, 4, 5] and (end.id, end.name) == (6, "failed")
        for number, sketch in enumerate(sketches, 1):
            assert history.picture(sketch.data["name"]) == png(number)
        files = [path for path in (tmp_path / "pictures").rglob("*") if path.is_file()]
        assert len(files) == 5  # neither halves nor pictures of nothing
