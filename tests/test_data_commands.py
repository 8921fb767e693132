"""`staged data` on folders that are finished, changed or damaged."""

import hashlib
import json
from pathlib import Path

import pytest

from staged.cli import main
from staged.shards import read_shards

JOB = ["data", "plan-sketch"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "data"
    assert main([*JOB, "prompts.count=6", "--out", str(out)]) == 0
    return out


def state(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "ledger" not in path.parts
    }


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["prompts.count=3"], "prompts.count is 3, but"),
        (["prompts.count=6", "title=other"], "title was 'plan-sketch' and is 'other'"),
        (["prompts.count=6", "seed=1", "steps.varied=0.5"], "seed was 0 and is 1; steps.varied"),
        (["prompts.count=9", "samples_per_shard=2"], "samples_per_shard was 1000 and is 2"),
        (["prompts.count=6", "prompts.tasks={counting: 1}"], "prompts.tasks"),
    ],
)
def test_a_finished_data_set_keeps_its_settings(
    folder: Path, overrides: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(folder)
    assert main([*JOB, *overrides, "--out", str(folder)]) == 1
    shown = capsys.readouterr().err
    assert said in shown and "another folder" in shown
    assert state(folder) == before


def test_what_changes_no_sample_is_no_change(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is left to do, so nothing of what the folder says is touched."""
    before = state(folder)
    assert main([*JOB, "prompts.count=6", "concurrency=3", "--out", str(folder)]) == 0
    assert "nothing was left to do" in capsys.readouterr().out
    assert state(folder) == before


def test_a_data_set_grows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*JOB, "prompts.count=8", "--out", str(folder)]) == 0
    assert "wrote" in capsys.readouterr().out
    assert "count: 8" in (folder / "settings.yaml").read_text()


def test_figures_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["data", "stats", str(folder), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["problems"] == [] and sum(figures["acceptance"]["samples"].values()) == 6


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "unfinished"])
@pytest.mark.parametrize("command", ["stats", "validate"])
def test_a_damaged_data_set_is_no_success(
    folder: Path, command: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [shard] = folder.glob("*.tar")
    content = bytearray(shard.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    elif damage == "cut":
        shard.write_bytes(content[:1000])
    elif damage == "gone":
        shard.unlink()
    else:
        (folder / "index.json").unlink()
    assert main(["data", command, str(folder)]) == 1
    shown = capsys.readouterr()
    assert ("index.json" if damage == "unfinished" else shard.name) in shown.out + shown.err
    assert "Errno" not in shown.err


@pytest.mark.parametrize("command", ["base", "plan-sketch"])
@pytest.mark.parametrize("seed", ["-1", str(2**63)])
def test_seeds_of_settings_have_the_range_of_the_option(
    command: str, seed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """numpy used to say "expected non-negative integer", of whatever."""
    (tmp_path / "job.yaml").write_text("out: o\n" if command == "base" else "title: t\n")
    out = ["--out", str(tmp_path / "o")] if command == "plan-sketch" else []
    assert main(["data", command, str(tmp_path / "job.yaml"), f"seed={seed}", *out]) == 1
    assert f"override 'seed={seed}': seed is {seed}; give 0 or more" in capsys.readouterr().err


def test_data_sets_are_merged_cut_and_priced(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    number = len(list(read_shards(folder)))
    together, cut = tmp_path / "together", tmp_path / "cut"
    assert main(["data", "merge", str(folder), str(folder), "--out", str(together)]) == 0
    keys = [sample.key for sample in read_shards(together)]
    assert keys == sorted(keys) and len(keys) == 2 * number and keys[0].startswith("0-")
    again = ["--keep-keys", "--out", str(tmp_path / "no")]
    assert main(["data", "merge", str(folder), str(folder), *again]) == 1
    assert "keys are unique" in capsys.readouterr().err
    size = ["--samples-per-shard", "2", "--out", str(cut)]
    assert main(["data", "reshard", str(together), *size]) == 0
    assert f"{2 * number} samples in {number} shards" in capsys.readouterr().out
    both = zip(read_shards(together), read_shards(cut), strict=True)
    assert all(one.key == other.key and one.trajectory == other.trajectory for one, other in both)
    assert main(["data", "cost", str(folder), "--samples", "1000", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["accepted"] == number and figures["calls"]["scene_graph"] == 6
    assert figures["samples_calls"]["scene_graph"] == pytest.approx(6000 / number)
