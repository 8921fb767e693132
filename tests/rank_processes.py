"""Real processes that are the ranks of one run, on gloo."""

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from training import start

from train.job import Trainer
from train.ranks import Ranks, joined
from train.settings import ParallelSettings, TrainSettings

PATIENCE_S = 600
"""Until ranks count as hanging. Four of them took 23 s on two idle cores and 150 on busy ones."""
QUICK = ParallelSettings(join_timeout_s=PATIENCE_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_rank(
    number: int,
    world_size: int,
    port: int,
    said: Path,
    settings: ParallelSettings,
    act: Callable[..., Any],
    *arguments: Any,
) -> None:
    """Be one rank; what is returned or raised lies in `said` in the end."""
    os.environ.update(
        RANK=str(number),
        LOCAL_RANK=str(number),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    try:
        with joined(settings) as ranks:
            outcome = {"returned": act(ranks, *arguments)}
    except ValueError as error:
        outcome = {"ValueError": str(error)}
    except OSError as error:
        outcome = {"OSError": str(error)}
    (said / str(number)).write_text(json.dumps(outcome))


def wait_for_all(processes: Sequence[Any]) -> None:
    """Wait until all have ended; none is left to run beside the tests that follow."""
    deadline = time.monotonic() + PATIENCE_S
    try:
        for process in processes:
            process.join(max(deadline - time.monotonic(), 0))
        running = [n for n, process in enumerate(processes) if process.exitcode is None]
        assert not running, f"processes {running} still run after {PATIENCE_S} s"
    finally:
        for process in processes:
            process.kill()


def run_ranks(
    folder: Path,
    world_size: int,
    act: Callable[..., Any],
    *arguments: Any,
    settings: ParallelSettings = QUICK,
    there: int | None = None,
) -> list[dict[str, Any] | None]:
    """What each rank returned or raised; None of one that was killed or never was."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    processes = [
        start(as_rank, number, world_size, port, folder, settings, act, *arguments)
        for number in range(world_size if there is None else there)
    ]
    wait_for_all(processes)
    outcomes: list[dict[str, Any] | None] = [None] * world_size
    for number in range(world_size):
        with suppress(FileNotFoundError):
            outcomes[number] = json.loads((folder / str(number)).read_text())
    return outcomes


def run_trainer(ranks: Ranks, settings: TrainSettings) -> int:
    """Train to the end; returns the steps taken."""
    trainer = Trainer(settings, ranks)
    trainer.run()
    return trainer.step


def train_on(world_size: int, settings: TrainSettings) -> None:
    """Run to the end on so many ranks, from wherever the run stands."""
    said = settings.out.with_name(f"{settings.out.name}.said")
    outcomes = run_ranks(said, world_size, run_trainer, settings)
    assert outcomes == [{"returned": settings.num_steps}] * world_size, outcomes
