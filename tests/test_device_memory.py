"""Memory is what the machine has, or less where a container or a job has a limit."""

from pathlib import Path

import pytest
import torch

from staged import device_memory
from staged.device_memory import free_memory, gib, memory_of

CPU = torch.device("cpu")
MIB = 2**20


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of control groups, of which this process is in `job/step`."""
    monkeypatch.setattr(device_memory, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(device_memory, "_MEMBERSHIP", tmp_path / "membership")
    (tmp_path / "membership").write_text("3:cpuset:/\n0::/job/step\n")
    (tmp_path / "cgroup/job/step").mkdir(parents=True)
    return tmp_path / "cgroup"


@pytest.mark.usefixtures("groups")
def test_without_limits_it_is_the_machine() -> None:
    assert 0 < free_memory(CPU) <= memory_of(CPU)


def test_the_nearest_limit_above_counts(groups: Path) -> None:
    (groups / "job/step/memory.max").write_text("max\n")
    (groups / "job/memory.max").write_text(f"{100 * MIB}\n")
    (groups / "job/memory.current").write_text(f"{70 * MIB}\n")
    assert memory_of(CPU) == 100 * MIB
    assert free_memory(CPU) == 30 * MIB
    # Cached files are given back before memory is refused.
    (groups / "job/memory.stat").write_text(f"anon 5\ninactive_file {20 * MIB}\n")
    assert free_memory(CPU) == 50 * MIB
    (groups / "job/memory.current").write_text(f"{200 * MIB}\n")
    assert free_memory(CPU) == 0


def test_limits_of_the_first_version_count_too(groups: Path) -> None:
    groups.parent.joinpath("membership").write_text("4:memory:/job\n0::/\n")
    folder = groups / "memory/job"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{64 * MIB}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{48 * MIB}\n")
    (folder / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {8 * MIB}\n")
    assert memory_of(CPU) == 64 * MIB
    assert free_memory(CPU) == 24 * MIB


@pytest.mark.parametrize("text", ["", "all of it", "-"])
def test_what_is_no_number_is_no_limit(groups: Path, text: str) -> None:
    (groups / "job/memory.max").write_text(text)
    assert memory_of(CPU) > 100 * MIB


def test_gib() -> None:
    assert [gib(size) for size in (0, 2**29, 28 * 2**30 + 2**29)] == ["0.0", "0.5", "28"]
