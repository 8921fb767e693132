"""One run on several ranks: the same losses and weights as on one, whatever packs lack."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.distributed as dist
from rank_processes import run_ranks, train_on
from safetensors.torch import load_file
from training import SLOW, TIMING, World, build, train

from staged.images import decode
from staged.model import checkpoint
from staged.trajectory_folder import load_trajectory
from train.optimizer import orthogonalise, orthogonalise_parts
from train.ranks import Ranks
from train.settings import (
    Log,
    LoraSettings,
    LowRankSettings,
    OptimizerSettings,
    ParallelSettings,
    Subset,
    TrainSettings,
)


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
    [(4, 2), *(pytest.param(*ranks, marks=SLOW) for ranks in [(2, 1), (3, 1), (4, 1)])],
)
def test_ranks_learn_what_one_process_learns(
    world: World, alone: Path, ranks: int, replicas: int
) -> None:
    """Of three ranks two idle in the second of a step's passes."""
    job = settings(world, f"on{ranks}x{replicas}", parallel=ParallelSettings(replicas=replicas))
    train_on(ranks, job)
    assert_alike(job.out, alone)


MUON = OptimizerSettings(kind="muon", lr=3e-3, warmup_steps=2, weight_decay=0.01, ema_decay=0.9)


@pytest.mark.parametrize(
    ("name", "tolerance", "changes"),
    [
        # Five iterations of Newton and Schulz enlarge what differs in the last digits.
        pytest.param(
            *("muon", 1e-3, {"optimizer": MUON, "freeze": ("vit", "words")}),
            marks=SLOW,
        ),
        (
            "recomputed",
            1e-5,
            {
                "activation_checkpointing": "full",
                "max_logits_mib": 1,
                "freeze": ("und",),
                "parallel": ParallelSettings(reshard=False),
            },
        ),
        pytest.param(
            *("selective", 1e-5, {"activation_checkpointing": "selective"}),
            marks=SLOW,
        ),
    ],
)
def test_so_they_do_with_other_settings(
    world: World, name: str, tolerance: float, changes: dict[str, Any]
) -> None:
    one, two = (settings(world, f"{name}{n}", **changes) for n in (1, 2))
    one, two = (replace(job, num_steps=5) for job in (one, two))
    train(one)
    train_on(2, two)
    assert_alike(two.out, one.out, tolerance)


@SLOW
def test_data_sets_count_the_same_on_any_number_of_ranks(world: World) -> None:
    data = (Subset(path=world.data, mse_weight=0.25), Subset(path=world.data, ce_weight=3))
    one, two = (settings(world, f"weighted{n}") for n in (1, 2))
    one, two = (replace(job, data=data, num_steps=5) for job in (one, two))
    train(one)
    train_on(2, two)
    assert_alike(two.out, one.out)


@SLOW
def test_in_bfloat16_they_keep_float32_weights_and_learn_nearly_the_same(world: World) -> None:
    one, two = (settings(world, f"narrow{n}", dtype="bfloat16") for n in (1, 2))
    one, two = (replace(job, num_steps=5) for job in (one, two))
    train(one)
    train_on(2, two)
    for line, wanted in zip(losses(two.out), losses(one.out), strict=True):
        assert line == pytest.approx(wanted, rel=0.05, abs=0.01)
    [_, state] = sorted(two.out.glob("state/00000005/*"))
    assert {tensor.dtype for tensor in load_file(state).values()} == {torch.float32}


@SLOW
@pytest.mark.parametrize("mode", ["one-shot", "staged"])
def test_ranks_draw_the_samples_that_one_process_draws(
    world: World, mode: Literal["one-shot", "staged"]
) -> None:
    """With all layers cut, drawing is a joint work too; one of them keeps the pictures."""
    log = Log(
        every_steps=1,
        sample_every_steps=2,
        sample_prompts=("a star", "a ring"),
        sample_flow_steps=2,
        sample_mode=mode,
    )
    one, two = (settings(world, f"drawn-{mode}{n}", log=log) for n in (1, 2))
    one, two = (replace(job, num_steps=3) for job in (one, two))
    train(one)
    train_on(2, two)
    assert_alike(two.out, one.out)
    [picture], [wanted] = (list(job.out.glob("samples/*.png")) for job in (two, one))
    assert picture.name == wanted.name == "00000002.png"
    difference = decode(picture.read_bytes()).astype(int) - decode(wanted.read_bytes())
    assert abs(difference).max() <= 1
    for number in range(len(log.sample_prompts) if mode == "staged" else 0):
        drawn, alone = (
            load_trajectory(job.out / "samples/00000002" / str(number)) for job in (two, one)
        )
        assert list(map(type, drawn.steps)) == list(map(type, alone.steps))


def orthogonalise_everywhere(ranks: Ranks, shapes: list[tuple[int, int, int]]) -> float:
    """The largest difference from whole matrices."""
    worst = 0.0
    for count, rows, columns in shapes:
        matrices = torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(0))
        each = -(-rows // ranks.world_size)
        mine = slice(ranks.number * each, (ranks.number + 1) * each)
        parts = orthogonalise_parts([m[mine] for m in matrices], rows, dist.group.WORLD)
        for part, matrix in zip(parts, orthogonalise(matrices), strict=True):
            assert part.shape == matrix[mine].shape
            if len(part):
                worst = max(worst, float((part - matrix[mine]).abs().max()))
    return worst


def test_matrices_dealt_out_over_ranks_are_made_orthogonal_as_whole_ones(tmp_path: Path) -> None:
    """Fewer matrices than ranks, fewer rows than ranks, rows that do not divide."""
    shapes = [(1, 6, 4), (5, 7, 9), (3, 2, 5), (4, 1, 3)]
    for outcome in run_ranks(tmp_path, 3, orthogonalise_everywhere, shapes):
        assert outcome is not None and outcome["returned"] < 1e-4


@SLOW
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ranks_train_a_lora_beside_weights_that_they_share(world: World, dtype: str) -> None:
    """More ranks than rows of some additions, which begin alike on any number of them."""
    lora = LoraSettings(und=LowRankSettings(rank=3), gen=LowRankSettings(rank=5))
    one, two = (settings(world, f"lora-{dtype}{n}", lora=lora, dtype=dtype) for n in (1, 2))
    one, two = (replace(job, num_steps=5) for job in (one, two))
    train(one)
    train_on(4, two)
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    for line, wanted in zip(losses(two.out), losses(one.out), strict=True):
        assert line == pytest.approx(wanted, rel=tolerance, abs=tolerance)
    weights = load_file(two.out / "adapter" / "adapter_model.safetensors")
    for name, tensor in load_file(one.out / "adapter" / "adapter_model.safetensors").items():
        if dtype == "float32":
            torch.testing.assert_close(weights[name], tensor, rtol=tolerance, atol=tolerance)
        assert weights[name].dtype == tensor.dtype
