"""What every command shares: parser, output, exit status, checks of where it will write."""

import errno
import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from staged.cli.demo.command import Clock
from staged.command_line import (
    MAX_SEED,
    Parser,
    UsageError,
    add_out_file,
    add_out_folder,
    add_seed,
    console,
    exit_codes,
    outputs,
    run,
)
from staged.jobs.progress import Progress, rate


def parser() -> Parser:
    made = Parser(prog="staged count", description="Count.", figures=True)
    made.add_argument("config", help="a file")
    made.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="settings")
    made.add_argument("--batch-size", type=int, default=4, help="images side by side")
    add_seed(made, "of the noise")
    made.add_argument("--export", action="store_true", help="write it")
    return made


def refused(made: Parser, argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        made.parse_args(argv)
    assert caught.value.code == exit_codes.USAGE
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_settings_may_stand_anywhere() -> None:
    found = parser().parse_args(["a.yaml", "x=1", "--export", "y=-2", "--batch-size", "3", "z="])
    assert found.overrides == ["x=1", "y=-2", "z="]
    assert found.batch_size == 3 and found.export


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["a.yaml", "--batch", "3"], "unrecognized arguments: --batch 3; did you mean --batch-siz"),
        (["a.yaml", "--exp"], "unrecognized arguments: --exp; did you mean --export?"),
        (["a.yaml", "--batch-size", "x"], "argument --batch-size: invalid int value: 'x'"),
        (["a.yaml", "x=1", "--export", "stray"], "unrecognized arguments: stray"),
        ([], "the following arguments are required: config (see"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(parser(), argv, capsys)


def test_parts_of_a_command_keep_the_conventions(capsys: pytest.CaptureFixture[str]) -> None:
    made = Parser(prog="staged data")
    part = made.add_subparsers(metavar="COMMAND", required=True).add_parser("base")
    part.add_argument("overrides", nargs="*", default=[], help="settings")
    part.add_argument("--number", type=int, default=0, help="of them")
    assert made.parse_args(["-q", "base", "a=1", "--number", "2", "b=2"]).quiet
    assert "did you mean --number" in refused(made, ["base", "--numbr", "2"], capsys)


def test_help_states_defaults_and_hides_empty_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("usage: staged count [OPTIONS] config [key=value ...]\n")
    assert "images side by side (default: 4)" in shown
    assert "of the noise (default: 0)" in shown
    assert "write it\n" in shown


def report(*argv: str) -> int:
    def command() -> int:
        parser().parse_args(["a.yaml", *argv])
        print("prose")
        print("a warning", file=sys.stderr)
        console().figures({"accuracy": 0.5, "worst": float("nan"), "path": "a"})
        return 0

    return run("staged", command)


@pytest.mark.parametrize(
    ("argv", "text", "figures"),
    [([], True, False), (["--json"], False, True), (["-q"], False, False),
     (["--quiet", "--json"], False, True)],
)  # fmt: skip
def test_output_is_what_was_asked_for(
    argv: list[str], text: bool, figures: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(*argv) == 0
    shown = capsys.readouterr()
    assert ("prose" in shown.out) == text and "a warning" in shown.err
    assert ("prose" in shown.err) == (argv == ["--json"])
    if figures:
        assert json.loads(shown.out) == {"accuracy": 0.5, "worst": None, "path": "a"}
    print("printing works again")
    assert capsys.readouterr().out == "printing works again\n"


def test_libraries_never_log_what_they_send(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.root.level, list(logging.root.handlers)
    try:
        report("--log-level", "debug")
        assert logging.getLogger("some.library").isEnabledFor(logging.DEBUG)
        for name in ("openai._base_client", "httpcore.http11"):
            assert not logging.getLogger(name).isEnabledFor(logging.DEBUG)
        # It logs addresses, whose queries may be secrets.
        for name in ("httpx", "httpcore.connection"):
            assert not logging.getLogger(name).isEnabledFor(logging.INFO)
            assert logging.getLogger(name).isEnabledFor(logging.WARNING)
    finally:
        logging.captureWarnings(False)
        logging.root.setLevel(before[0])
        logging.root.handlers[:] = before[1]
        for name in ("TRANSFORMERS", "DIFFUSERS", "HF_HUB"):
            os.environ.pop(f"{name}_VERBOSITY", None)


class OutOfMemoryError(RuntimeError):
    """As torch calls it."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "a"), "a: no such file or directory"),
        (PermissionError(13, "Permission denied", b"b"), "b: permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
        (sqlite3.DatabaseError("file is not a database"), "file is not a database; restore"),
        (OutOfMemoryError("tried 2 GiB"), "out of memory on the device: tried 2 GiB"),
        (MemoryError(), "out of memory"),
        (ValueError("x is 3; give 4"), "x is 3; give 4"),
        (UsageError("give one of both"), "give one of both"),
    ],
)
def test_what_a_user_or_a_machine_can_cause_is_one_line(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        raise error

    usage = isinstance(error, UsageError)
    assert run("staged", command) == (exit_codes.USAGE if usage else exit_codes.FAILED)
    shown = capsys.readouterr().err
    assert shown.startswith("staged: error: ") and said in shown and shown.count("\n") == 1
    assert "Errno" not in shown


def test_a_mistake_of_ours_is_not_hidden() -> None:
    def command() -> int:
        return {}["key"]

    with pytest.raises(KeyError):
        run("staged", command)


def child(code: str, **options: object) -> "subprocess.Popen[str]":
    options.setdefault("stdout", subprocess.PIPE)
    code = "import sys\nfrom staged.command_line import *\n" + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, **options
    )


def test_ctrl_c_is_quiet_and_says_how_to_go_on() -> None:
    process = child(
        """
        import time
        def command():
            print("working", flush=True)
            time.sleep(60)
        sys.exit(run("staged", command))
        """
    )
    assert process.stdout is not None and process.stdout.readline() == "working\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == exit_codes.INTERRUPTED
    assert said.count("\n") == 1 and "the same command goes on" in said


@pytest.mark.parametrize("lines", [1, 2000])
def test_a_reader_that_leaves_is_no_error(lines: int) -> None:
    read, write = os.pipe()
    os.close(read)
    process = child(
        f"""
        def command():
            for _ in range({lines}):
                print("x" * 99)
            return 0
        sys.exit(run("staged", command))
        """,
        stdout=write,
    )
    os.close(write)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (exit_codes.PIPE_CLOSED, "")


def out_parser(kind: str) -> Parser:
    made = Parser(prog="p")
    (add_out_folder if kind == "folder" else add_out_file)(made)
    add_seed(made, "of the noise")
    return made


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_good_place_is_taken_and_nothing_is_created(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b.json"
    assert out_parser(kind).parse_args(["--out", str(out)]).out == out
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_one_is_a_wrong_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    for kind, place, said in [
        ("folder", "file", "is a file; name a folder"),
        ("folder", "file/below", "is a file; name a folder"),
        ("folder", "lost", "is a link to what is not there"),
        ("file", "file/below", "is a file; name a folder"),
        ("file", ".", "is a folder; name a file"),
    ]:
        assert said in refused(out_parser(kind), ["--out", f"{tmp_path}/{place}"], capsys)
    assert "name a path" in refused(out_parser("folder"), ["--out", ""], capsys)


@pytest.mark.parametrize("made", ["out", "out/below"])
def test_a_folder_that_another_rank_makes_meanwhile_is_taken(
    made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Path.stat

    def asked_just_before_it_is_made(path: Path, **how: bool) -> os.stat_result:
        try:
            return ask(path, **how)
        except FileNotFoundError:
            if path == tmp_path / "out":
                (tmp_path / made).mkdir(parents=True)
            raise

    monkeypatch.setattr(Path, "stat", asked_just_before_it_is_made)
    assert outputs.folder(tmp_path / "out") == tmp_path / "out"
    assert (tmp_path / made).is_dir()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that nobody can write")
@pytest.mark.parametrize("check", [outputs.folder, outputs.file])
def test_a_place_that_cannot_be_written_is_told_before_work(check: object) -> None:
    with pytest.raises(PermissionError, match="/proc cannot be written"):
        check(Path("/proc/staged"))  # type: ignore[operator]


def test_a_full_disk_is_told_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="MB are needed"):
        outputs.folder(tmp_path, need_bytes=1 << 60)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 10))
    with pytest.raises(OSError, match="67 MB are needed"):
        out_parser("file").parse_args(["--out", str(tmp_path / "a.json")])


@pytest.mark.parametrize("seed", ["-1", "x", "1.5", str(MAX_SEED + 1), "nan"])
def test_seeds_have_a_range(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(out_parser("folder"), ["--out", "a", f"--seed={seed}"], capsys)
    assert f"argument --seed: {seed!r}: give a whole number from 0 to" in said


def test_torch_that_loads_slowly_is_announced_on_a_terminal(tmp_path: Path) -> None:
    import pty

    (tmp_path / "torch.py").write_text("import time\ntime.sleep(1.6)\n")
    ours, theirs = pty.openpty()
    code = (
        "from staged.command_line import run\n"
        "def command():\n    import torch\n    return 0\n"
        "raise SystemExit(run('staged', command))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    with subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 1000):
                shown += part
        except OSError:
            pass  # how Linux tells that the other side has closed
        assert process.wait(timeout=30) == 0
    os.close(ours)
    assert shown.startswith(b"loading torch ...") and shown.endswith(b"\r\x1b[K")


@pytest.mark.parametrize("own", [None, pytest.param("ACTIVE", marks=pytest.mark.slow)])
def test_threads_give_their_core_away_while_they_wait(own: str | None) -> None:
    """Or pictures take fifty times as long beside a busy process; the user's own choice stands."""
    code = "import staged.command_line.running as r; r.run('x', lambda: bool(__import__('torch')))"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    environment |= {"OMP_DISPLAY_ENV": "TRUE"} | ({"OMP_WAIT_POLICY": own} if own else {})
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    if "OMP_WAIT_POLICY" not in done.stderr:
        pytest.skip("this torch has no OpenMP that shows its settings")
    assert f"OMP_WAIT_POLICY = '{own or 'PASSIVE'}'" in done.stderr


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0.0 x/s"), (0.034, "0.034 x/s"), (0.96, "1.0 x/s"), (3.24, "3.2 x/s"),
     (9.96, "10 x/s"), (812.4, "812 x/s")],
)  # fmt: skip
def test_a_rate_below_ten_has_a_decimal(value: float, words: str) -> None:
    assert rate(value, "x/s") == words


def test_quiet_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        Parser(prog="p").parse_args(["-q"])
        Progress("images", 1).advance()
        return 0

    assert run("staged", command) == 0
    assert capsys.readouterr() == ("", "")


def test_a_demo_that_goes_on_adds_up_its_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run used to claim that everything was done in a second."""
    (tmp_path / "seconds.json").write_text('{"Draw": 600.0, "Score": 60.0}\n')
    clock = Clock(tmp_path / "seconds.json")
    with clock.part("Draw", "why"):
        pass
    assert clock.seconds["Draw"] >= 600
    assert "(0:00, 10:00 with earlier runs)" in capsys.readouterr().out
    kept = json.loads((tmp_path / "seconds.json").read_text())
    assert kept["Draw"] >= 600 and kept["Score"] == 60
