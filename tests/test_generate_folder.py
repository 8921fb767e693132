"""The folder of `staged generate`: one process at a time, nothing overwritten, nothing lost."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny import picture

from staged.cli import main as staged
from staged.command_line import outputs
from staged.generate.command import main
from staged.generate.folder import OutFolder
from staged.images import encode_png
from staged.jobs import locks

FRESH = ["--checkpoint", "miniature:fresh", "--flow-steps", "2"]
ONE_SHOT = [*FRESH, "--mode", "one-shot"]
DIRECTED = [*FRESH, "--planner", "scripted", "--inspector", "scripted", "--max-flow-steps", "6"]
"""The miniature draws, in trajectories of several lengths."""
PROMPTS = (
    "a photo of a star",
    "a photo of three hearts",
    "a photo of a red circle above a blue star",
    "a photo of a ring",
    "a photo of a star",
)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS))
    return path


def start(arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "staged", "generate", *arguments], stdout=subprocess.DEVNULL
    )


def wait_for(found: object, process: "subprocess.Popen[bytes]") -> None:
    """Until `found()` is true; a process that ended before had nothing to be found."""
    assert callable(found)
    while not found():
        assert process.poll() is None, "it ended too early"
        time.sleep(0.002)


def contents(folder: Path) -> dict[str, bytes]:
    """All that is kept for good; the page says how long it took."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "report.html"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("batch_size", "then"), [pytest.param("1", "4", marks=pytest.mark.slow), ("3", "2")]
)
def test_what_is_finished_outlives_a_kill_and_the_rest_is_drawn_as_without_it(
    prompts: Path, tmp_path: Path, batch_size: str, then: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kill after 11 seconds lost everything; and a batch size of its own was to be kept to."""
    argv = ["--prompts", str(prompts), *DIRECTED]
    assert main([*argv, "--out", str(tmp_path / "whole")]) == 0
    out = tmp_path / "out"
    with start([*argv, "--batch-size", batch_size, "--out", str(out)]) as process:
        wait_for(lambda: list(out.glob("*/trajectory.json")), process)
        process.kill()
    assert process.returncode < 0
    finished = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/trajectory.json")}
    assert 1 <= len(finished) < len(PROMPTS)
    (out / "00004").mkdir(exist_ok=True)
    (out / "00004" / "0.png").write_bytes(b"half")  # of one that was killed while it was saved
    capsys.readouterr()

    assert main([*argv, "--batch-size", then, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"{len(finished)} of {len(PROMPTS)} trajectories are there" in printed
    for number in range(len(PROMPTS)):
        name = f"{number:05d}"
        assert (f"[{number}] stop" in printed) == (name not in finished)
        if name in finished:
            assert (out / name / "trajectory.json").stat().st_mtime_ns == finished[name]
    assert contents(out) == contents(tmp_path / "whole")


def test_a_second_process_is_refused_until_the_first_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    endless = ["--flow-steps", "100000", "--max-flow-steps", "100000"]
    argv = ["a star", *ONE_SHOT, *endless, "--out", str(out)]
    with start(argv) as process:
        wait_for((out / "settings.json").is_file, process)
        assert staged(["generate", *argv]) == 1
        said = capsys.readouterr().err
        assert f"another process draws into {out}" in said and said.count("\n") == 1
        process.kill()
    assert (out / ".lock").is_file()
    with OutFolder(out, []):
        pass
    assert not (out / ".lock").exists()


def test_the_same_command_again_draws_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["a star", *ONE_SHOT, "--out", str(tmp_path)]
    assert main(argv) == 0
    before = (tmp_path / "trajectory.json").stat().st_mtime_ns
    capsys.readouterr()
    for options in ([], ["--json"], ["--quiet"]):  # these decide nothing
        assert staged(["generate", *argv, *options]) == 0
    printed = capsys.readouterr().out
    assert "all were drawn before" in printed and "sketch" not in printed
    assert (tmp_path / "trajectory.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["a ring"], "holds 'a photo of a star' with seed 0 where 'a photo of a ring'"),
        (["a star", "--seed", "1"], "seed 0 where 'a photo of a star' with seed 1"),
        (["a star", "--image", "in.png"], "images was [] and is"),
        (["a star", "--num-images", "2"], "requests was"),
        (["a star", "--guidance-scale", "2"], "guidance.text_scale was 4.0 and is 2.0"),
        (["a star", "--flow-steps", "3"], "num_flow_steps was 2 and is 3"),
        (["a star", "--temperature", "0.5"], "temperature was 0.0 and is 0.5"),
        (["a star", "--checkpoint", "miniature:base"], "checkpoint was 'miniature:fresh' and is"),
    ],
)
def test_a_folder_of_other_pictures_is_refused_by_name_and_kept(
    change: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One prompt overwrote another without a word."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.png").write_bytes(encode_png(picture(0, 48, 48)))
    out = ["--out", str(tmp_path)]
    assert main(["a star", *ONE_SHOT, *out]) == 0
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="choose another --out") as refused:
        main([*ONE_SHOT, *change, *out])
    assert told in str(refused.value)
    assert contents(tmp_path) == before


def test_a_changed_line_is_named(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = ["--prompts", str(prompts), *ONE_SHOT, "--out", str(out)]
    assert main(argv) == 0
    before = contents(out)
    prompts.write_text(prompts.read_text().replace("three hearts", "two hearts"))
    with pytest.raises(ValueError, match="holds 'a photo of three hearts' with seed 0 where"):
        main(argv)
    prompts.write_text("\n".join([*PROMPTS, "a photo of a cross"]))
    with pytest.raises(ValueError, match=r"requests was '5, .* and is '6, "):
        main(argv)
    assert contents(out) == before


@pytest.mark.parametrize("name", ["final.png", "0.png", "settings.json", "report.html", "00000"])
def test_files_of_other_origin_are_never_taken_for_ours(name: str, tmp_path: Path) -> None:
    """A user's own 0.png and final.png were removed."""
    if name == "00000":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(ValueError, match=name):
        main(["a star", *ONE_SHOT, "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_room_for_all_pictures_is_looked_for_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=outputs.MIN_FREE_BYTES + 9 * 2 * 48 * 48)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    argv = ["a star", *ONE_SHOT, "--out", str(tmp_path / "out")]
    with pytest.raises(OSError, match="make room, or write elsewhere"):
        main([*argv, "--num-images", "10"])
    assert not (tmp_path / "out").exists()
    assert main([*argv, "--num-images", "9"]) == 0
    usage = usage._replace(free=outputs.MIN_FREE_BYTES)
    assert main([*argv, "--num-images", "9"]) == 0  # nothing is left to be drawn


def test_other_files_of_a_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["a star", *ONE_SHOT, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_without_a_folder_each_request_finds_its_own_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for prompt in ("a star", "a ring", "a photo of a red circle left of a blue heart"):
        assert main([prompt, *ONE_SHOT]) == 0
    assert main(["a ring", *ONE_SHOT, "--seed", "3"]) == 0
    names = sorted(path.name for path in Path("out/generate").iterdir())
    assert (
        len(names) == 4
        and [name.rpartition("-")[0] for name in names].count("a-photo-of-a-ring") == 2
    )
    capsys.readouterr()
    assert main(["a ring", *ONE_SHOT]) == 0
    assert "all were drawn before" in capsys.readouterr().out


def test_a_lock_that_was_left_with_its_file_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the file and locking it, who had it may go and take the file away."""
    path, held = tmp_path / "lock", []
    take = locks.try_whole

    def leaving(file: int, where: Path) -> bool:
        if not held:
            held.append(file)
            path.unlink()
        return take(file, where)

    monkeypatch.setattr(locks, "try_whole", leaving)
    with locks.alone(path, "busy"):
        other = os.open(path, os.O_RDWR)
        assert not take(other, path)  # the file that is there is the one that is locked
        os.close(other)
        with pytest.raises(ValueError, match="busy"), locks.alone(path, "busy"):
            pass
    assert not path.exists()
    shutil.rmtree(tmp_path)
