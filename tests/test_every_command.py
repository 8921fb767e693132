"""What holds for every command of the tree, whoever adds one."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from test_eval_judge import write_prompts

from eval.results import BenchmarkResult
from staged.cli import main
from staged.cli.completion import SHELLS, tree
from staged.cli.main import choose
from staged.command_line import Parser, exit_codes, walk
from staged.shards.writer import ShardWriter

TREE = dict(walk(choose))
LEAVES = [
    words for words, parser in TREE.items() if words and not parser.parts() and not parser.commands
]

MISSING = {
    "demo": ["--quick", "--base", "nowhere", "--out", "out"],
    "data plan-sketch": ["nowhere.yaml", "--out", "out"],
    "data critique": ["generator.checkpoint=nowhere", "--out", "out"],
    "data refine": ["sources=[{path: nowhere, format: genref}]", "--out", "out"],
    "data import": ["sources=[{path: nowhere, format: bagel-t2i}]", "--out", "out"],
    "data base": ["nowhere.yaml"],
    "data on-ray": ["1", "stranger"],
    "data validate": ["nowhere"],
    "data stats": ["nowhere"],
    "data cost": ["nowhere"],
    "data merge": ["nowhere", "--out", "out"],
    "data reshard": ["nowhere", "--out", "out"],
    "data pairs": ["nowhere", "--out", "out"],
    "data decisions": ["nowhere", "--out", "out"],
    "data preview": ["nowhere"],
    "train": ["configs/shapes/demo_train.yaml", "out=out", "data=[{path: nowhere}]"],
    "reinforce": ["configs/shapes/reinforce.yaml", "out=out", "prompts=nowhere"],
    "self-reward sft": ["nowhere.yaml"],
    "self-reward rollout": ["configs/self_reward/miniature.yaml", "prompts=nowhere"],
    "self-reward judge": ["nowhere.yaml"],
    "self-reward pairs": ["nowhere.yaml"],
    "self-reward dpo": ["nowhere.yaml"],
    "self-reward run": ["configs/self_reward/miniature.yaml", "prompts=nowhere"],
    "self-reward optimise": ["a star", "--run", "nowhere"],
    "self-reward draw": ["--run", "nowhere", "--prompts", "nowhere", "--out", "out"],
    "self-reward chosen": ["--run", "nowhere", "--out", "out"],
    "self-reward prefer": ["nowhere", "--run", "nowhere", "--out", "out"],
    "self-reward miniature": ["--num-ideas", "0", "--out", "out"],
    "self-reward import": ["diffusiondb", "nowhere", "--out", "out"],
    "generate": ["--prompts", "nowhere", "--out", "out"],
    "tune-steps": ["--checkpoint", "nowhere", "--prompts", "nowhere", "--out", "out"],
    "serve": ["checkpoint=nowhere", "port=0", "out=out"],
    "idea2img": ["--ideas", "nowhere", "--out", "out"],
    "export": ["nowhere", "--out", "out"],
    "merge-lora": ["nowhere", "--out", "out"],
    "idea2img-study page": ["nowhere", "--out", "out"],
    "idea2img-study votes": ["nowhere", "--key", "nowhere", "--out", "out"],
    "eval idea2img": ["--out", "out", "model.checkpoint=nowhere"],
    "eval miniature": ["--checkpoint", "nowhere", "--out", "out"],
    "eval skills": ["--checkpoint", "nowhere", "--out", "out"],
    "eval tune-guidance": ["--checkpoint", "nowhere", "--out", "out"],
    "eval generate": ["--benchmark", "geneval", "--prompts", "nowhere", "--out", "out",
                      "--generator", "model", "checkpoint=nowhere"],
    "eval on-ray": ["1", "stranger"],
    "eval geneval": ["--detections", "nowhere", "--out", "out"],
    "eval detect": ["nowhere", "--detector", "miniature", "--out", "out"],
    "eval convert-detector": ["nowhere", "--out", "out"],
    "eval judge-wise": ["nowhere", "--version", "verified", "--prompts", "nowhere",
                        "--out", "out"],
    "eval wise": ["--judgements", "nowhere", "--version", "verified", "--out", "out"],
    "eval answer-geneval2": ["nowhere", "--prompts", "nowhere", "--out", "out"],
    "eval geneval2": ["--answers", "nowhere", "--prompts", "nowhere", "--out", "out"],
    "eval rewards": ["--images", "nowhere", "--reward", "clipscore", "--out", "out"],
    "eval judge-accuracy": ["nowhere", "--out", "out"],
    "eval convert-reward": ["hps", "nowhere", "--out", "out"],
    "eval compare": ["nowhere"],
    "eval report": ["nowhere", "--out", "out"],
    "paper": ["nowhere.yaml"],
    "report": ["nowhere"],
    "verify bagel": ["nowhere"],
    "shapes measure-detector": ["--num-scenes", "0"],
    "shapes preview": ["--num-per-task", "0"],
    "shapes prompts": ["--num-per-task", "0"],
    "shapes ship": ["nowhere", "base"],
    "shapes card": ["nowhere"],
    "configs": ["configs/nowhere.yaml"],
    "completion": ["tcsh"],
}  # fmt: skip
"""For each command, arguments with something missing; for a new command, add a row."""

NOTHING: dict[str, list[str] | None] = {
    "demo": None,
    "data plan-sketch": ["prompts.count=1", "prompts.file=blank.txt", "--out", "out"],
    "data critique": ["prompts.count=1", "prompts.file=blank.txt", "--out", "out"],
    "data refine": ["sources=[{path: blank.txt, format: json-lines}]", "--out", "out"],
    "data import": ["sources=[{path: blank.txt, format: conversations}]", "--out", "out"],
    "data base": ["none.yaml"],
    "data on-ray": ["0", "refine"],
    "data validate": ["zero"],
    "data stats": ["zero"],
    "data cost": ["zero"],
    "data merge": ["zero", "--out", "out"],
    "data reshard": ["zero", "--out", "out2"],
    "data pairs": ["zero", "--out", "out3"],
    "data decisions": ["zero", "--out", "out4"],
    "data preview": ["zero"],
    "train": ["configs/shapes/demo_train.yaml", "out=out", "data=[{path: zero}]"],
    "reinforce": ["configs/shapes/reinforce.yaml", "out=out", "prompts=blank.txt"],
    **{
        f"self-reward {stage}": ["configs/self_reward/miniature.yaml", "prompts=blank.txt"]
        for stage in ("sft", "rollout", "judge", "pairs", "dpo", "run")
    },
    "self-reward optimise": ["--prompts", "blank.txt", "--out", "out", "--run", "empty"],
    "self-reward draw": ["--run", "empty", "--prompts", "blank.txt", "--out", "out"],
    "self-reward chosen": ["--run", "empty", "--out", "out"],
    "self-reward prefer": ["blank.txt", "--run", "empty", "--out", "out"],
    "self-reward miniature": ["--num-prompts", "0", "--out", "out"],
    "self-reward import": ["beautiful-prompt", "nothing.json", "--out", "out"],
    "generate": ["--prompts", "blank.txt", "--out", "out"],
    "tune-steps": ["--checkpoint", "miniature:base", "--prompts", "blank.txt", "--out", "out"],
    "serve": None,
    "idea2img": ["--ideas", "blank.txt", "--out", "out"],
    "export": ["empty", "--out", "out"],
    "merge-lora": ["empty", "--out", "out"],
    "idea2img-study page": ["empty", "--out", "out"],
    "idea2img-study votes": ["votes.json", "--key", "key.json", "--out", "out"],
    "eval idea2img": ["--num-per-kind", "0", "--out", "out"],
    "eval miniature": ["--score-only", "--out", "out"],
    "eval skills": ["--checkpoint", "miniature:base", "--num-per-skill", "0", "--out", "out"],
    "eval tune-guidance": ["--checkpoint", "miniature:base", "--num-per-skill", "0",
                           "--out", "out"],
    "eval generate": ["--benchmark", "geneval", "--prompts", "images", "--out", "out",
                      "--allow-unscored", "--generator", "folder", "images=images",
                      "pattern={prompt}_{image}"],
    "eval on-ray": ["0", "detect"],
    "eval geneval": ["--detections", "blank.txt", "--out", "out", "--allow-unscored"],
    "eval detect": ["images", "--detector", "miniature", "--out", "out"],
    "eval convert-detector": ["blank.txt", "--out", "out"],
    "eval judge-wise": ["images", "--version", "verified", "--prompts", "wise", "--out", "out",
                        "base_url=http://127.0.0.1:9/v1"],
    "eval wise": ["--judgements", "blank.txt", "--version", "verified", "--out", "out",
                  "--allow-unscored"],
    "eval answer-geneval2": ["images", "--prompts", "questions.jsonl", "--out", "out",
                             "--through", "server"],
    "eval geneval2": ["--answers", "blank.txt", "--prompts", "questions.jsonl", "--out", "out",
                      "--allow-unscored"],
    "eval rewards": ["--images", "images", "--reward", "clipscore", "--out", "out",
                     "--allow-unscored"],
    "eval judge-accuracy": ["blank.txt", "--out", "out"],
    "eval convert-reward": ["hps", "blank.txt", "--out", "out"],
    "eval compare": ["unscored.json", "unscored2.json"],
    "eval report": ["unscored.json", "--samples", "unscored.jsonl", "--images", "empty",
                    "--out", "out"],
    "paper": ["configs/paper/miniature.yaml", "out=out", "--write-only"],
    "report": ["zero", "--out", "out"],
    "verify bagel": ["empty"],
    "shapes measure-detector": ["--num-scenes", "0"],
    "shapes preview": ["--num-per-task", "0"],
    "shapes prompts": ["--num-per-task", "0"],
    "shapes ship": ["empty", "base"],
    "shapes card": None,
    "configs": None,
    "completion": None,
}  # fmt: skip
"""For each command, arguments that leave it nothing to do, of the fixture `nothing`; None where
there is always something. It must fail and say so: whoever runs it in a script sees no pictures."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["staged"])


def options(parser: Parser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.help is not argparse.SUPPRESS]


def test_the_tree_is_complete() -> None:
    assert {" ".join(words) for words in LEAVES} == set(MISSING) == set(NOTHING)
    assert len(TREE) > len(LEAVES) > 25


@pytest.mark.parametrize("words", TREE, ids=" ".join)
def test_help_has_an_example_and_explains_every_option(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == exit_codes.OK
    shown = capsys.readouterr().out
    command = " ".join(("staged", *words))
    assert shown.startswith(f"usage: {command}")
    assert f"{command} " in " ".join(shown.partition("example")[2].split()) + " "
    for action in options(TREE[words]):
        assert action.help, f"{command}: {action.option_strings or action.dest} has no help"


def test_no_help_needs_torch() -> None:
    code = """
import contextlib, io, sys
from staged.cli import main
from staged.cli.main import choose
from staged.command_line import walk
for words, _ in walk(choose):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    for module in ("torch", "transformers", "diffusers"):
        if module in sys.modules:
            sys.exit(f"{words} imports {module}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", TREE, ids=" ".join)
def test_an_option_that_is_not_there_is_a_wrong_command_line(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words, "--no-such-option"])
    assert caught.value.code == exit_codes.USAGE
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("staged")


@pytest.mark.parametrize("words", TREE, ids=" ".join)
def test_nothing_is_abbreviated(words: tuple[str, ...]) -> None:
    assert not TREE[words].allow_abbrev


@pytest.mark.parametrize("command", MISSING)
def test_what_is_missing_is_told_in_one_line(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    try:
        code = main([*command.split(), *MISSING[command]])
    except SystemExit as left:
        code = left.code
    said = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert code in (exit_codes.FAILED, exit_codes.USAGE)
    assert len(said) == 1 and said[0].startswith("staged")
    assert "Errno" not in said[0] and "Traceback" not in said[0]
    assert not any(path.is_file() for path in tmp_path.rglob("*")), "it began to write"


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of inputs that are as they must be, and hold nothing."""
    folder = tmp_path_factory.mktemp("nothing")
    (folder / "empty").mkdir()
    (folder / "blank.txt").write_text("\n  \n\n")
    (folder / "none.yaml").write_text("out: shards\nnum_samples: 0\n")
    with ShardWriter(folder / "zero", title="zero") as writer:
        writer.finish()
    record = {"tag": "counting", "include": [{"class": "dog", "count": 2}], "prompt": "two dogs"}
    (folder / "images" / "00000" / "samples").mkdir(parents=True)
    (folder / "images" / "00000" / "metadata.jsonl").write_text(json.dumps(record))
    question = [["Is there a dog?", "yes"]]
    known = {"prompt": "two dogs", "atom_count": 1, "vqa_list": question, "skills": ["object"]}
    (folder / "questions.jsonl").write_text(json.dumps(known))
    write_prompts(folder / "wise" / "wise_verified", "verified")
    (folder / "nothing.json").write_text("[]")
    key = {"format": "staged-study/1", "digest": "0", "title": "a", "seed": 0, "items": {}}
    (folder / "key.json").write_text(json.dumps(key))
    votes = {"format": "staged-votes/1", "study": "0", "voter": "ann", "votes": {}}
    (folder / "votes.json").write_text(json.dumps(votes))
    unscored = {"metadata": record, "image": "0.png", "detections": None, "error": "broken"}
    (folder / "unscored.jsonl").write_text(json.dumps(unscored))
    for name in ("unscored", "unscored2"):
        BenchmarkResult(
            benchmark="geneval", variant={}, run=name, weights={"counting": 1},
            samples={"counting": {"two dogs": (None,)}},
        ).write(folder / f"{name}.json")  # fmt: skip
    return folder


@pytest.mark.parametrize("command", [command for command, given in NOTHING.items() if given])
def test_nothing_to_do_is_no_success(
    command: str, nothing: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`looked at 0 images` and `0 samples, 0 problems` were successes."""
    monkeypatch.chdir(nothing)
    try:
        code = main([*command.split(), *(NOTHING[command] or ())])
    except SystemExit as left:
        code = left.code
    said = capsys.readouterr()
    assert code in (exit_codes.FAILED, exit_codes.USAGE), said
    last = said.err.strip().split("\n")[-1]
    assert last.startswith("staged") or last.startswith("damaged: no samples"), said
    assert "Errno" not in last and "Traceback" not in said.err


def test_one_word_for_one_thing() -> None:
    """Options that would be a second spelling of one that other commands have."""
    known = {"--batch", "--flow-steps-per-image", "--num-flow-steps", "--output", "--number",
             "--num-threads", "--precision"}  # fmt: skip
    for words, parser in TREE.items():
        assert not known & set(parser.options()), words


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_outputs_and_seeds_are_checked_where_the_command_line_is_read(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    """By the shared types; a path of its own would be found out after minutes of work."""
    (tmp_path / "file").write_text("")
    for action in options(TREE[words]):
        if "--out" in action.option_strings:
            with pytest.raises(argparse.ArgumentTypeError, match="is a file"):
                action.type(str(tmp_path / "file" / "below"))  # type: ignore[operator]
        if "--seed" in action.option_strings:
            with pytest.raises(argparse.ArgumentTypeError, match="whole number from 0"):
                action.type("-1")  # type: ignore[operator]


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_no_option_takes_nan_or_infinity(words: tuple[str, ...]) -> None:
    """A comparison with NaN is false: `--max-difference nan` kept nothing after all the work."""
    parser = TREE[words]
    for action in options(parser):
        if action.type is None:
            continue
        read = parser._registry_get("type", action.type, action.type)
        for text in ("nan", "inf", "-inf"):
            with suppress(argparse.ArgumentTypeError, ValueError):
                value = read(text)
                assert not isinstance(value, float), f"{action.option_strings} takes {value}"


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """A folder with work of the user's own, under the names of our applications."""
    trap = "import pathlib\npathlib.Path('stolen').write_text(__name__)\nprint('THE USERS FILE')\n"
    for name in ("train.py", "data_pipelines.py", "random.py"):
        (tmp_path / name).write_text(trap)
    for name in ("eval", "configs", "staged_data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(trap)
    return tmp_path


def staged(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "staged", *words], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.parametrize("words", ["train", "eval compare", "data stats", "shapes"])
@pytest.mark.parametrize("searched", [False, True], ids=["", "searched"])
def test_a_users_files_are_never_run(
    users_folder: Path, words: str, searched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if searched:  # as with an installation, or PYTHONPATH=.
        (users_folder / "random.py").unlink()  # the whole of Python would take that one
        monkeypatch.setenv("PYTHONPATH", f"{users_folder}:{os.environ.get('PYTHONPATH', '')}")
    done = staged(users_folder, *words.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert f"usage: staged {words}" in done.stdout and "THE USERS FILE" not in done.stdout
    assert not (users_folder / "stolen").exists()


def test_a_job_runs_beside_a_users_files(users_folder: Path) -> None:
    """With processes of its own (`num_workers`), which look for modules again."""
    (users_folder / "base.yaml").write_text("out: shards\nnum_samples: 4\nnum_workers: 2\n")
    done = staged(users_folder, "data", "base", "base.yaml")
    assert done.returncode == 0, done.stderr
    assert (users_folder / "shards" / "index.json").is_file()
    assert not (users_folder / "stolen").exists()


def test_processes_started_afresh_find_ours_too(users_folder: Path) -> None:
    """As on macOS, and from Python 3.14 on everywhere; they inherit no finder."""
    (users_folder / "random.py").unlink()
    (users_folder / "base.yaml").write_text("out: shards\nnum_samples: 4\nnum_workers: 2\n")
    (users_folder / "start.py").write_text(
        "import multiprocessing, sys\n"
        "from staged.cli import main\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        "    sys.exit(main(['data', 'base', 'base.yaml']))\n"
    )
    done = subprocess.run(  # a script's own folder comes first on the search path
        [sys.executable, "start.py"], cwd=users_folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not (users_folder / "stolen").exists()


def test_what_shadows_an_application_is_named(tmp_path: Path) -> None:
    """`python -m train` takes what it finds first; ours notices if it is not all ours."""
    shutil.copytree(Path(__file__).parents[1] / "train", tmp_path / "train")
    done = subprocess.run(
        [sys.executable, "-m", "train", "a.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("train: error: ") and done.stderr.count("\n") == 1
    assert f"{tmp_path}/train/__main__.py shadows `train` of staged" in done.stderr


@pytest.mark.parametrize("module", ["train", "train.autoencoder", "eval", "data_pipelines"])
def test_modules_fail_like_the_command(module: str, tmp_path: Path) -> None:
    words = {"eval": ["compare", "no.json"], "data_pipelines": ["stats", "no"]}
    done = subprocess.run(
        [sys.executable, "-m", module, *words.get(module, ["no.yaml"])],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"{module}: error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (["staged", "tr"], ["train"]),
        (["staged", "data", "st"], ["stats"]),
        (["staged", "eval", "miniature", "--num-per"], ["--num-per-task"]),
        (["staged", "verify", "bagel", "--tol"], ["--tolerance"]),
    ],
)
def test_bash_completes(line: list[str], found: list[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    quoted = " ".join(f"'{word}'" for word in line)
    script = (
        f"{SHELLS['bash'](tree())}\nCOMP_WORDS=({quoted})\nCOMP_CWORD={len(line) - 1}\n"
        'COMPREPLY=()\n_staged\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_valid(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert script.count("--num-per-task") == 3 and " eval miniature" in script
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_shipped_settings_are_listed_and_copied(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["configs"]) == 0
    name = "configs/shapes/demo_train.yaml"
    assert name in capsys.readouterr().out
    assert main(["configs", name]) == 0
    shown = capsys.readouterr().out
    assert main(["configs", name, "--out", "mine/own.yaml"]) == 0
    assert (tmp_path / "mine/own.yaml").read_text() == shown
    assert main(["configs", name, "--out", "mine/own.yaml"]) == 1
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "generate",
        "generate a --prompts b",
        "generate a --preset edit",
        "generate a --preset t2i --image b",
        "generate a --size 48",
        "generate a --guidance-interval 0.5",
        "data plan-sketch",
        "eval miniature --out out",
        "eval miniature --out out --score-only --seed 1",
        "eval detect nowhere --detector mask2former --out out",
        "eval report a --out out --per-kind 0",
        "verify bagel",
        "configs --out out",
    ],
)
def test_options_that_do_not_go_together_are_a_wrong_command_line(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(line.split())
    except SystemExit as left:
        code = left.code
    assert code == exit_codes.USAGE
    assert capsys.readouterr().err.count("\n") == 1


def test_a_real_job_stops_quietly_and_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "staged", "data", "plan-sketch", "--out", "out"]
    with subprocess.Popen(
        [*command, "prompts.count=2000"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()  # of progress: it is at work
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == exit_codes.INTERRUPTED
    assert "Traceback" not in said
    assert said.endswith("staged: interrupted; the same command goes on from what is saved\n")
    done = subprocess.run([*command, "prompts.count=40"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "prompts 1/40" not in done.stderr, "it began anew"


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_settings_on_top_are_never_required(words: tuple[str, ...]) -> None:
    """argparse would list `key=value` among what is missing."""
    for action in TREE[words]._actions:
        assert action.dest != "overrides" or not action.required
