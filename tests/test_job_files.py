"""Files that several processes write at once."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from staged.jobs.files import sweep, temporary, whole_folder, write_json, write_whole

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
    other = tmp_path / ".a.b.tar.tmp"
    (dead,) = set(tmp_path.iterdir()) - {ours, elsewhere, other}
    sweep(tmp_path, lambda name: name != "a.b.tar", everyones=True)
    assert dead.exists()
    sweep(tmp_path, lambda name: name == "a.b.tar")
    assert set(tmp_path.iterdir()) == {ours, elsewhere, other}
    sweep(tmp_path, lambda name: name == "a.b.tar", everyones=True)
    assert set(tmp_path.iterdir()) == {other}


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


REPLACER = """
import os, signal, sys
from pathlib import Path
from staged.jobs import files

renamed, folder = 0, Path(sys.argv[1])
rename = Path.rename

def deadly(path, target):
    global renamed
    renamed += 1
    if renamed == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(path, target)

Path.rename = deadly
with files.whole_folder(folder) as fresh:
    (fresh / "file").write_text("new")
"""


@pytest.mark.parametrize("killed_at", [1, 2])
def test_a_folder_is_the_old_or_the_new_one_wherever_it_is_killed(
    tmp_path: Path, killed_at: int
) -> None:
    folder = tmp_path / "model"
    with whole_folder(folder) as fresh:
        (fresh / "file").write_text("old")
    command = [sys.executable, "-c", REPLACER, str(folder), str(killed_at)]
    assert subprocess.run(command).returncode == -9
    # The earlier one is there, whole: in its place, or (between two renames) beside it.
    place = folder if killed_at == 1 else next(tmp_path.glob(".model.*.old"))
    assert (place / "file").read_text() == "old"
    with whole_folder(folder) as fresh:
        (fresh / "file").write_text("newest")
    assert (folder / "file").read_text() == "newest"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_cannot_be_filled_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with whole_folder(folder) as fresh:
        (fresh / "file").write_text("old")
    with pytest.raises(ValueError, match="no more"), whole_folder(folder) as fresh:
        (fresh / "file").write_text("half")
        raise ValueError("no more")
    assert (folder / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
