"""Memory is what the machine has, or less where a container or a job has a limit."""

from pathlib import Path

import pytest
import torch

from staged import device_memory
from staged.device_memory import free_memory, gib, memory_of, peak_gib

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


def test_a_peak_stays_when_what_made_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = peak_gib(CPU)
    assert before is not None and 0 < before * 2**30 <= memory_of(CPU)
    held = torch.ones(256, MIB // 4 + 1)
    after = peak_gib(CPU)
    assert after is not None and after >= before
    del held
    assert peak_gib(CPU) == pytest.approx(after, abs=0.02)
    status = tmp_path / "status"
    monkeypatch.setattr(device_memory, "_STATUS", status)
    status.write_text("Name:\tpython\n\nVmHWM:\t  3145728 kB\nVmRSS:\t 12 kB\n")
    assert peak_gib(CPU) == 3.0
    for none in ("", "VmHWM:\n", "VmHWM: lots kB\n"):
        status.write_text(none)
        assert peak_gib(CPU) is None


def test_gib() -> None:
    assert [gib(size) for size in (0, 2**29, 28 * 2**30 + 2**29)] == ["0.0", "0.5", "28"]
