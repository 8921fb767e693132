"""The command: its table, its errors and its exit codes."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from data_pipelines.__main__ import main as data
from staged.cli.commands import COMMANDS, Command
from staged.cli.main import main
from staged.shapes.__main__ import main as shapes


def echo(argv: list[str]) -> int:
    print(*argv)
    return 0


def refuse(argv: list[str]) -> int:
    raise ValueError("num_rounds must be positive, got 0")


def vanish(argv: list[str]) -> int:
    raise FileNotFoundError(2, "No such file or directory", argv[0])


def be_interrupted(argv: list[str]) -> int:
    raise KeyboardInterrupt


def need_a_package(argv: list[str]) -> int:
    import a_package_that_nobody_has  # noqa: F401

    return 0


def return_three(argv: list[str]) -> int:
    return 3


def break_down(argv: list[str]) -> int:
    raise AssertionError("our own mistake")


TABLE = {
    function.__name__.replace("_", "-"): Command("", f"{__name__}:{function.__name__}")
    for function in (
        echo, refuse, vanish, be_interrupted, need_a_package, return_three, break_down
    )
}  # fmt: skip


def test_what_follows_the_command_is_the_commands_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["echo", "--help", "--debug", "a=b", "--", "-x"], TABLE) == 0
    assert capsys.readouterr().out == "--help --debug a=b -- -x\n"


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["refuse"], 1, "staged: error: num_rounds must be positive, got 0\n"),
        (["vanish", "a"], 1, "staged: error: a: no such file or directory\n"),
        (["return-three"], 3, ""),
    ],
)
def test_a_failure_is_one_line(
    argv: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv, TABLE) == code
    assert capsys.readouterr().err == message


def test_a_missing_package_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["need-a-package"], TABLE) == 1
    assert "needs the module 'a_package_that_nobody_has'" in capsys.readouterr().err


def test_an_interrupted_command_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["be-interrupted"], TABLE) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["option", "environment"])
def test_debugging_shows_where_an_error_arose(
    how: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "environment":
        monkeypatch.setenv("STAGED_DEBUG", "1")
    assert main(["--debug", "refuse"] if how == "option" else ["refuse"], TABLE) == 1
    assert "in refuse" in capsys.readouterr().err


def test_our_own_mistakes_are_not_hidden() -> None:
    with pytest.raises(AssertionError):
        main(["break-down"], TABLE)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["ecko"], "unknown command 'ecko'; did you mean `staged echo`?"),
        (["zzz"], "commands: echo"),
        (["--verbose", "echo"], "unrecognized arguments: --verbose"),
        (["--debug", "zzz"], "commands: echo"),
    ],
)
def test_a_wrong_command_line_exits_with_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv, TABLE)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = (
        "import sys, types\n"
        "from staged.cli.commands import Command\n"
        "from staged.cli.main import main\n"
        "module = types.ModuleType('talker')\n"
        "module.main = lambda argv: [print('x' * 99) for _ in range(99999)] and 0\n"
        "sys.modules['talker'] = module\n"
        "sys.exit(main(['talk'], {'talk': Command('', 'talker:main')}))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "staged", name, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"usage: staged {name}" in done.stdout
    assert "example" in done.stdout.lower()
    assert f"staged {name}" in done.stdout.partition("xample")[2]


@pytest.mark.parametrize(
    ("main", "names"),
    [
        (data, ["plan-sketch", "base", "validate", "stats", "preview"]),
        (shapes, ["measure-detector", "preview", "ship"]),
    ],
)
def test_every_part_of_a_command_has_an_example(
    main: Callable[[list[str]], int], names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    for name in names:
        assert f"    {name}" in listed
        with pytest.raises(SystemExit):
            main([name, "--help"])
        shown = capsys.readouterr().out
        assert f" {name} " in shown.partition("\nexample")[2]
