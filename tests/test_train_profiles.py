"""Chosen steps are traced, and learn what they would have learned."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training import assert_same, build, train

from train.profiles import profiled
from train.settings import Log


@pytest.mark.slow
def test_traced_steps_leave_a_file_each_and_change_nothing(tmp_path: Path) -> None:
    world = build(tmp_path)
    plain = world.settings(tmp_path / "plain", num_steps=4)
    traced = replace(plain, out=tmp_path / "traced", log=Log(every_steps=1, profile_steps=(2, 4)))
    assert_same(train(traced), train(plain))
    assert not (plain.out / "profile").exists()
    files = sorted((traced.out / "profile").iterdir())
    assert [path.name for path in files] == ["00000002-rank0.json.gz", "00000004-rank0.json.gz"]
    for path in files:
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        operations = {str(event.get("name")) for event in events}
        assert "aten::mul" in operations and any("Backward" in name for name in operations)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "profile").write_text("")
    with pytest.raises(OSError), profiled(True, tmp_path, 1, 0, torch.device("cpu")):
        raise AssertionError


def test_steps_before_the_first_are_told() -> None:
    with pytest.raises(ValueError, match="profile_steps"):
        Log(profile_steps=(0,))
