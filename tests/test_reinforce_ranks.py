"""Reinforcement on several processes: the same rollouts, the same learning, and kills."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_processes import run_ranks
from safetensors.torch import load_file
from test_reinforce import log, made, run, settings
from training import SLOW, World, assert_same, build, die_at

from staged.jobs.rank import Rank
from train.ranks import Ranks
from train.reinforce.job import Reinforcer
from train.reinforce.rollouts import starts_of
from train.reinforce.settings import ReinforceSettings, RolloutSettings
from train.reinforce.sharing import dealt
from train.settings import LoraSettings, LowRankSettings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = build(tmp_path_factory.mktemp("world"), [])
    (made.folder / "prompts.txt").write_text("a star\na ring\na heart\n")
    return made


def several(world: World, out: Path, **changes: Any) -> ReinforceSettings:
    """Three groups for two ranks, and a last step that has a pack for one of them alone."""
    rollouts = RolloutSettings(
        num_prompts=3, group_size=2, mode="one-shot", num_flow_steps=2, guidance_scale=1.0
    )
    changes = {"pack_tokens": 120, "rollouts": rollouts, **changes}
    return replace(settings(world, out), **changes)


def run_or_die(
    ranks: Ranks, job: ReinforceSettings, victim: int, target: str, call: int, when: str
) -> int:
    if ranks.number == victim:
        die_at(target, call, when)
    reinforcer = Reinforcer(job, ranks)
    reinforcer.run()
    return reinforcer.iteration


def reinforce_on(world_size: int, job: ReinforceSettings) -> dict[str, Any]:
    said = job.out.with_name(f"{job.out.name}.said")
    never = (-1, "", 0, "")
    outcomes = run_ranks(said, world_size, run_or_die, job, *never)
    assert outcomes == [{"returned": job.iterations}] * world_size, outcomes
    return made(job.out)


def weights(out: Path, iteration: int) -> dict[str, torch.Tensor]:
    folder = out / "state" / f"{iteration:08d}"
    parts = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    return {
        name: torch.cat([part[name] for part in parts if name in part])
        for name in parts[0]
        if name.startswith("weights.") and parts[0][name].ndim
    }


@pytest.fixture(scope="module")
def undisturbed(world: World) -> dict[str, Any]:
    """Of two ranks."""
    return reinforce_on(2, several(world, world.folder / "undisturbed"))


def test_two_ranks_draw_the_same_and_learn_as_one(
    world: World, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    alone, both = tmp_path / "alone", world.folder / "undisturbed"
    run(several(world, alone, iterations=1))
    drawn = sorted(path for path in (alone / "rollouts/00001").iterdir() if path.is_file())
    assert len(drawn) > 2
    for path in drawn:
        assert path.read_bytes() == (both / "rollouts/00001" / path.name).read_bytes()
    assert not list(both.glob("rollouts/*.parts"))
    assert log(both)[0]["num_optimizer_steps"] == log(alone)[0]["num_optimizer_steps"] > 1
    for name in ("reward", "image_loss", "grad_norm", "text_nats"):
        assert log(both)[0][name] == pytest.approx(log(alone)[0][name], rel=1e-4)
    ours, theirs = weights(both, 1), weights(alone, 1)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@SLOW
def test_two_ranks_share_a_lora(world: World, tmp_path: Path) -> None:
    lora = LoraSettings(und=LowRankSettings(rank=2), gen=LowRankSettings(rank=2))
    alone, both = (
        several(world, tmp_path / name, iterations=1, lora=lora) for name in ("alone", "both")
    )
    run(alone)
    reinforce_on(2, both)
    assert (both.out / "adapter").is_dir()
    ours, theirs = weights(both.out, 1), weights(alone.out, 1)
    assert ours.keys() == theirs.keys() and any(name.endswith("lora_b") for name in ours)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("victim", "target", "call"),
    [
        (1, "train.reinforce.step:PolicyStep.take", 3),
        (0, "train.reinforce.job:take_parts", 2),
        (1, "train.reinforce.job:put_part", 2),
    ],
)
@SLOW
def test_a_rank_that_is_killed_ends_all_and_the_run_continues_bit_for_bit(
    world: World, undisturbed: dict[str, Any], tmp_path: Path, victim: int, target: str, call: int
) -> None:
    killed = several(world, tmp_path / "killed")
    outcomes = run_ranks(tmp_path / "said", 2, run_or_die, killed, victim, target, call, "before")
    assert outcomes[victim] is None
    left = outcomes[1 - victim]
    assert left is not None and "lost another process of this run" in left["OSError"]
    assert_same(reinforce_on(2, killed), undisturbed)


@SLOW
def test_a_run_goes_on_with_another_number_of_ranks(world: World, tmp_path: Path) -> None:
    """From the same states: what two ranks drew first stands, and the rest is drawn by others."""
    job = several(world, tmp_path / "changing", iterations=1, packs_per_step=4)
    reinforce_on(2, job)
    drawn = (job.out / "rollouts/00001/shard-000000.tar").read_bytes()
    kept = weights(job.out, 1)
    # The last step has no pack for one rank, which must add nothing to it.
    alone = replace(job, out=tmp_path / "alone")
    reinforce_on(1, alone)
    for name, tensor in weights(alone.out, 1).items():
        torch.testing.assert_close(kept[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    for iterations, world_size in ((2, 4), (3, 1)):
        reinforce_on(world_size, replace(job, iterations=iterations))
        assert [line["step"] for line in log(job.out)][-1] == iterations
    assert (job.out / "rollouts/00001/shard-000000.tar").read_bytes() == drawn
    after = weights(job.out, 3)
    assert after.keys() == kept.keys()
    assert any(not torch.equal(after[name], kept[name]) for name in kept)


def test_groups_are_dealt_whole() -> None:
    chosen = RolloutSettings(num_prompts=5, group_size=3)
    starts = starts_of(["a", "b", "c"], 1, chosen, 0)
    shares = [dealt(starts, 3, Rank(number=number, world_size=2)) for number in range(2)]
    assert [len(share) for share in shares] == [9, 6]
    assert {start.key for share in shares for start in share} == {start.key for start in starts}
    assert [start.key[:5] for start in shares[1]] == ["00001"] * 3 + ["00003"] * 3
