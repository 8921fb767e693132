"""Chosen steps are traced, and learn what they would have learned."""

import gzip
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_processes import run_ranks
from training import assert_same, build, start, train

from staged.cli import main as cli
from staged.settings import save_resolved
from train.job import Trainer
from train.packing import Pack
from train.profiles import TraceRequests, profiled
from train.ranks import Ranks
from train.run_model import RunModel
from train.settings import Log, TrainSettings


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


def ask_for_a_trace(ranks: Ranks, job: TrainSettings) -> None:
    """The second rank is sent the signal in the first step, and another one in the last."""
    trainer = Trainer(job, ranks)
    real = trainer.train_step

    def train_step(*packs: Pack) -> dict[str, float]:
        if trainer.step in (0, job.num_steps - 1) and ranks.number == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return real(*packs)

    trainer.train_step = train_step  # type: ignore[method-assign]
    trainer.run()


@pytest.mark.slow
def test_a_signal_to_any_rank_has_all_of_them_trace_the_next_step(tmp_path: Path) -> None:
    job = build(tmp_path).settings(tmp_path / "run", num_steps=3, packs_per_step=2)
    assert run_ranks(tmp_path / "said", 2, ask_for_a_trace, job) == [{"returned": None}] * 2
    files = sorted(path.name for path in (job.out / "profile").iterdir())
    assert files == ["00000002-rank0.json.gz", "00000002-rank1.json.gz"]


def test_a_request_holds_once_and_the_signal_is_given_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with TraceRequests() as requests:
        assert not requests.taken()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert requests.taken() and not requests.taken()
    assert signal.getsignal(signal.SIGUSR1) is before


def ask_at_any_time(job: Path) -> None:
    """The signal comes as the model is loaded, and as the checkpoint is written."""
    for owner, name in ((Trainer, "__init__"), (RunModel, "write")):
        real = getattr(owner, name)

        def acts(*arguments: Any, real: Any = real) -> Any:
            os.kill(os.getpid(), signal.SIGUSR1)
            return real(*arguments)

        setattr(owner, name, acts)
    raise SystemExit(cli(["train", str(job)]))


def test_a_request_while_it_loads_or_writes_does_not_end_a_run(tmp_path: Path) -> None:
    job = build(tmp_path).settings(tmp_path / "run", num_steps=1)
    save_resolved(job, tmp_path / "job.yaml")
    process = start(ask_at_any_time, tmp_path / "job.yaml")
    process.join()
    assert process.exitcode == 0
    assert (job.out / "checkpoint").is_dir() and not (job.out / "profile").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "profile").write_text("")
    with pytest.raises(OSError), profiled(True, tmp_path, 1, 0, torch.device("cpu")):
        raise AssertionError


def test_steps_before_the_first_are_told() -> None:
    with pytest.raises(ValueError, match="profile_steps"):
        Log(profile_steps=(0,))
