"""One run on several ranks: the same losses and weights as on one, whatever packs lack."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_processes import train_on
from training import SLOW, TIMING, World, build, train

from staged.model import checkpoint
from train.settings import ParallelSettings, TrainSettings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


def settings(world: World, out: str, **changes: Any) -> TrainSettings:
    """Twenty steps of four packs, which hold one to three samples and often lack a modality."""
    return world.settings(
        world.folder / out,
        cache=world.folder / "cache",
        num_steps=20,
        packs_per_step=4,
        checkpoint_every_steps=100,
        **changes,
    )


def losses(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMING} for line in lines]


def assert_alike(out: Path, expected: Path, tolerance: float = 1e-5) -> None:
    """Losses by task, norms and weights."""
    for line, wanted in zip(losses(out), losses(expected), strict=True):
        assert line == pytest.approx(wanted, rel=tolerance, abs=tolerance)
    weights = checkpoint.load(out / "checkpoint").model.state_dict()
    for name, tensor in checkpoint.load(expected / "checkpoint").model.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def alone(world: World) -> Path:
    train(settings(world, "alone"))
    return world.folder / "alone"


@pytest.mark.parametrize(
    ("ranks", "replicas"),
    [(4, 2), (3, 1), *(pytest.param(*ranks, marks=SLOW) for ranks in [(2, 1), (4, 1)])],
)
def test_ranks_learn_what_one_process_learns(
    world: World, alone: Path, ranks: int, replicas: int
) -> None:
    """Of three ranks two idle in the second of a step's passes."""
    job = settings(world, f"on{ranks}x{replicas}", parallel=ParallelSettings(replicas=replicas))
    train_on(ranks, job)
    assert_alike(job.out, alone)
