"""Files that several processes write at once."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from staged.jobs.files import halves, temporary, write_json, write_whole

WRITER = """
import sys
from pathlib import Path
from staged.jobs.files import write_whole
for number in range(200):
    write_whole(Path(sys.argv[1]), sys.argv[2].encode() * 5000)
"""


def test_processes_that_write_one_file_leave_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), c]) for c in "abc"]
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            content = path.read_bytes()
            assert len(content) == 5000 and len(set(content)) == 1
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_threads_of_one_process_have_temporaries_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    threads = [threading.Thread(target=write_json, args=(path, {"n": n})) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text().startswith('{"n":') and len(list(tmp_path.iterdir())) == 1


def test_only_halves_of_dead_processes_of_this_machine_may_go(tmp_path: Path) -> None:
    path = tmp_path / "a.b.tar"
    ours = temporary(path)
    ours.write_bytes(b"in the making")
    code = "import sys; from pathlib import Path; from staged.jobs.files import temporary; "
    code += "temporary(Path(sys.argv[1])).write_bytes(b'')"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    elsewhere = tmp_path / ".a.b.tar.0123abcd-17-0.tmp"
    elsewhere.write_bytes(b"")
    (tmp_path / ".a.b.tar.tmp").write_bytes(b"of something else")
    ((dead, name),) = halves(tmp_path)
    assert name == "a.b.tar" and dead not in (ours, elsewhere)
    assert {half for half, _ in halves(tmp_path, everyones=True)} == {ours, dead, elsewhere}


def test_a_write_that_fails_leaves_no_half_and_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == ["file"]
