"""The miniature suite in several processes: other processes, orders and kills, the same bytes."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from eval.__main__ import main as staged_eval
from eval.miniature import main
from eval.miniature.draw import draw
from eval.miniature.settings import MiniatureSettings, samples
from eval.miniature.store import BatchStore
from eval.on_ray import main as on_ray
from staged import images
from staged.jobs.rank import Rank, rank_of
from staged.jobs.units import units

QUICK = [
    *("--checkpoint", "miniature:fresh", "--flow-steps", "2", "--batch-size", "2"),
    *("--tasks", "colors", "counting", "--num-per-task", "4"),
]


def run(folder: Path, *more: str) -> None:
    assert main(["--out", str(folder), *QUICK, *more]) == 0


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("result.json", "samples.jsonl")}


def pictures(folder: Path) -> dict[str, bytes | None]:
    return {key: t.images[0].png for key, t in BatchStore(folder).trajectories().items()}


@pytest.mark.slow
def test_three_processes_in_any_order_leave_what_one_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "one")
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in ("2", "0", "1"):
        assert not (tmp_path / "three" / "result.json").exists()
        monkeypatch.setenv("RANK", rank)
        run(tmp_path / "three")
    assert "2 samples; 6 are left to the others" in capsys.readouterr().out
    assert content(tmp_path / "three") == content(tmp_path / "one")
    assert pictures(tmp_path / "three") == pictures(tmp_path / "one")


@pytest.mark.slow
def test_a_killed_batch_is_drawn_again_in_another_order_with_the_same_result(
    tmp_path: Path,
) -> None:
    run(tmp_path / "whole")
    settings = MiniatureSettings(
        checkpoint="miniature:fresh",
        tasks=("colors", "counting"),
        num_per_task=4,
        num_flow_steps=2,
    )
    killed = BatchStore(tmp_path / "killed")
    shuffled = random.Random(0).sample(samples(settings), 8)
    draw(settings, shuffled, killed, batch_size=2, rank=Rank(number=1, world_size=2))
    half = tmp_path / "killed" / "drawn" / samples(settings)[0].key
    half.mkdir()
    (half / ".shard-000000.tar.tmp").write_bytes(b"half")
    assert len(killed.trajectories()) == 4
    run(tmp_path / "killed")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert pictures(tmp_path / "killed") == pictures(tmp_path / "whole")


def test_a_ray_cluster_leaves_what_one_process_leaves(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra `ray`")
    prompts, made = tmp_path / "prompts.jsonl", tmp_path / "made"
    record = {"tag": "single_object", "include": [{"class": "star", "count": 1}]}
    texts = [json.dumps(record | {"prompt": f"{number} stars"}) for number in range(5)]
    prompts.write_text("\n".join(texts))
    made.mkdir()
    for number in range(5):
        pixels = np.full((4, 4, 3), number, np.uint8)
        (made / f"{number}.png").write_bytes(images.encode_png(pixels))
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        for out, command in (("one", ["generate"]), ("ray", ["on-ray", "3", "generate"])):
            arguments = [
                *("--benchmark", "geneval", "--prompts", str(prompts), "--images-per-prompt", "1"),
                *("--out", str(tmp_path / out), "--generator", "folder", f"images={made}"),
                "pattern={prompt}",
            ]
            assert staged_eval([*command, *arguments]) == 0
    finally:
        ray.shutdown()
    for name in ("samples.jsonl", "00003/samples/00000.png", "generation/settings.json"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_only_commands_that_share_their_work_go_to_ray() -> None:
    with pytest.raises(SystemExit):
        on_ray(["3", "compare", "a.json"])
    with pytest.raises(ValueError, match="0 processes"):
        on_ray(["0", "generate"])


def test_processes_share_every_unit_once() -> None:
    batches = units(range(11), 2)
    assert [len(batch) for batch in batches] == [2, 2, 2, 2, 2, 1]
    shares = [Rank(number=rank, world_size=4).share(batches) for rank in range(4)]
    assert sorted(batch for share in shares for batch in share) == batches


def test_a_shard_is_given_whole_or_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank_of(None, None) == Rank()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert rank_of(None, None) == Rank(number=1, world_size=3)
    assert rank_of(0, 2) == Rank(world_size=2)
    with pytest.raises(ValueError, match="give both"):
        rank_of(1, None)
    with pytest.raises(ValueError, match="rank 3 of 3"):
        rank_of(3, 3)
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ValueError, match="RANK='first'"):
        rank_of(None, None)
