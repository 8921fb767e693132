"""`staged train --plan`: what it counts is what a run has, and what it advises fits."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from training import CONFIG as TINY
from training import World, build, one_shot, start

from staged.cli import main as staged
from staged.device_memory import GIB
from staged.model.bagel import Bagel
from staged.model.config import TransformerConfig
from staged.model.recompute import Recompute, set_recompute
from staged.model.transformer import Layer, rope_tables
from staged.settings import find_config, load
from train.activations import count_activations
from train.forecast import Machine, config_of, forecast, ranks_needed, tell
from train.gpus import GPUS, Gpu
from train.job import Trainer
from train.live_bytes import LiveBytes
from train.memory import kept_bytes
from train.num_ranks import problem_of_ranks
from train.objective import Objective
from train.settings import LoraSettings, ParallelSettings, Subset, TrainSettings
from train.sharding import local, shard
from train.ways_out import ways_out

CONFIG = "configs/bagel_7b/plan_sketch.yaml"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Pictures drawn from texts: none is looked at."""
    return build(tmp_path_factory.mktemp("world"), [one_shot(seed) for seed in range(12)])


@pytest.fixture(scope="module")
def full() -> TrainSettings:
    """All weights, a pack a step, nothing made again."""
    shipped = load(TrainSettings, find_config(Path(CONFIG)))
    return replace(shipped, activation_checkpointing="none", packs_per_step=1)


TRANSFORMER = TransformerConfig(
    hidden_size=64,
    intermediate_size=344,
    num_layers=3,
    num_heads=4,
    num_kv_heads=4,
    head_dim=16,
    vocab_size=290,
)


def by_a_fused_kernel(_: int, *parts: Tensor) -> Tensor:
    """Which a CPU has too, for attention without a mask."""
    query, key, value = (part.transpose(0, 1)[None] for part in parts)
    return F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1)


@pytest.mark.parametrize("mode", ["none", "selective", "full"])
def test_activations_are_those_of_layers_that_really_run(mode: Recompute) -> None:
    """Most bytes that there are at once, beside weights, of real layers on real numbers."""
    tokens = 1000
    layers = nn.ModuleList(Layer(TRANSFORMER, index) for index in range(TRANSFORMER.num_layers))
    set_recompute(layers, mode)
    for parameter in layers.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gradients = [p.grad for p in layers.parameters() if p.grad is not None]
    x = torch.randn(tokens, TRANSFORMER.hidden_size, requires_grad=True)
    rope = rope_tables(torch.arange(tokens), TRANSFORMER.head_dim, 1e4, torch.float32)
    with LiveBytes([*layers.parameters(), *gradients, *rope, x]) as counted:
        before = counted.now
        hidden = x
        for layer in layers:
            hidden = layer(hidden, tokens // 3, rope, by_a_fused_kernel)
        hidden.backward(torch.ones_like(hidden))
    found = count_activations(TRANSFORMER, torch.float32, mode).of_pack(TRANSFORMER, tokens)
    assert found == pytest.approx(counted.peak - before, rel=0.1)


def test_each_way_of_recomputing_keeps_what_it_says(full: TrainSettings) -> None:
    """`full` a layer's input alone; `selective` what products and attention gave beside."""
    config = config_of(full.init).transformer
    modes: tuple[Recompute, ...] = ("none", "selective", "full")
    kept = {mode: count_activations(config, torch.bfloat16, mode).kept for mode in modes}
    width, heads = config.hidden_size, config.num_heads * config.head_dim
    products = heads + 2 * config.num_kv_heads * config.head_dim  # queries, keys, values
    products += 2 * width + 2 * config.intermediate_size  # outputs of attention and of the MLP
    assert kept["full"] == 2 * width
    selective = 2 * (width + products + heads) + 4 * config.num_heads
    assert kept["selective"] == pytest.approx(selective, abs=1)  # and a kernel's few numbers
    assert 2 * kept["selective"] < kept["none"] < 3 * kept["selective"]


def test_what_is_kept_is_what_the_run_itself_counts(world: World, tmp_path: Path) -> None:
    settings = world.settings(tmp_path, freeze=("vit",))
    trainer = Trainer(settings)
    expected = kept_bytes(
        trainer.model, trainer.parameters, trainer.optimizer, averaged=True, dtype=torch.float32
    )
    found = forecast(settings, config_of(str(world.init))).parts
    assert {name: found[name] for name in expected} == expected


def part_of_one_rank(said: Path, ranks: int, replicas: int) -> None:
    """Cut the full model among ranks that are not there, on the meta device."""
    dist.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())
    with torch.device("meta"):
        model = Bagel(config_of("ByteDance-Seed/BAGEL-7B-MoT"))
    sizes, names = (ranks,), ("shard",)
    if replicas > 1:
        sizes, names = (replicas, ranks // replicas), ("replicate", "shard")  # type: ignore[assignment]
    mesh = init_device_mesh("cpu", sizes, mesh_dim_names=names)
    shard(Objective(model), mesh, torch.bfloat16, ParallelSettings(replicas=replicas))
    said.write_text(str(sum(local(p).nbytes for p in model.parameters())))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("ranks", "replicas"), [pytest.param(64, 1, marks=pytest.mark.slow), (64, 8)]
)
def test_a_rank_of_64_holds_the_share_that_is_planned(
    tmp_path: Path, full: TrainSettings, ranks: int, replicas: int
) -> None:
    process = start(part_of_one_rank, tmp_path / "said", ranks, replicas)
    process.join(600)
    assert process.exitcode == 0
    job = replace(full, packs_per_step=64, parallel=ParallelSettings(replicas=replicas))
    planned = forecast(job, config_of(full.init), ranks).parts["weights"]
    assert int((tmp_path / "said").read_text()) == pytest.approx(planned, rel=0.01)


def test_more_ranks_less_memory_and_less_time(full: TrainSettings) -> None:
    job = replace(full, packs_per_step=16, activation_checkpointing="full")
    config = config_of(job.init)
    one, eight = (forecast(job, config, ranks) for ranks in (1, 8))
    assert eight.parts["weights"] == one.parts["weights"] // 8
    assert eight.parts["activations"] == one.parts["activations"]
    assert one.step_s(GPUS["h100"], 0.5) == pytest.approx(8 * eight.step_s(GPUS["h100"], 0.5))
    # Twelve ranks take two turns for sixteen packs, as eight do.
    assert forecast(job, config, 12).step_s(GPUS["h100"], 0.5) == pytest.approx(
        eight.step_s(GPUS["h100"], 0.5)
    )
    assert ranks_needed(job, config, GPUS["h100"]) == 8
    never = replace(job, activation_checkpointing="none")  # 33,000 tokens, nothing made again
    assert ranks_needed(never, config, GPUS["h100"]) is None


@pytest.mark.parametrize(
    ("packs", "replicas", "least", "expected"),
    [
        *((16, 1, 3, 4), (3, 1, 3, 3), (2, 1, 3, None), (1, 1, 1, 1)),
        *((12, 3, 2, 6), (9, 3, 3, 9), (8, 3, 3, None), (2, 3, 1, None)),
    ],
)
def test_a_number_of_ranks_that_is_proposed_is_one_that_the_run_takes(
    tmp_path: Path, packs: int, replicas: int, least: int, expected: int | None
) -> None:
    """Where memory asks for more ranks than there are packs, none was refused before."""
    job = TrainSettings(
        init="miniature:fresh",
        data=(Subset(path=tmp_path),),
        out=tmp_path,
        packs_per_step=packs,
        parallel=ParallelSettings(replicas=replicas),
    )
    able = replace(job, packs_per_step=64)
    memory = forecast(able, TINY, least * replicas).total
    found = ranks_needed(job, TINY, Gpu(memory, 1e12))
    assert found == expected
    assert found is None or not problem_of_ranks(job, found)


def test_where_packs_are_what_it_lacks_the_plan_says_how_many(
    full: TrainSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("train.forecast.config_of", lambda init: TINY)
    job = replace(full, pack_tokens=10, packs_per_step=3)
    memory = forecast(replace(job, packs_per_step=8), TINY, 8).total
    gpu = Gpu(memory, 1e12)
    tell(job, Machine(name="tiny", gpu=gpu, ranks=2, utilization=0.3, usd_per_gpu_hour=None))
    said = capsys.readouterr().out
    assert "it fits on no number of tiny; with packs_per_step=8 it fits on 8\n" in said


def test_every_way_out_takes_less_and_the_last_fits_one_gpu(full: TrainSettings) -> None:
    config = config_of(full.init)
    ways = list(ways_out(full, lambda settings: forecast(settings, config).total))
    totals = [total for *_, total in ways]
    assert len(totals) > 4 and totals == sorted(totals, reverse=True)
    assert forecast(full, config).total > totals[0] > 79 * GIB >= totals[-1]


def test_a_lora_is_counted_beside_narrow_weights(full: TrainSettings) -> None:
    job = replace(full, lora=LoraSettings(), activation_checkpointing="full")
    parts = forecast(job, config_of(full.init)).parts
    assert 27 * GIB < parts["weights"] < 30 * GIB
    assert parts["moments"] == pytest.approx(2 * parts["gradients"], rel=0.01) and parts["moments"]


def run(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any], str]:
    code = staged(["train", CONFIG, "--plan", "--json", *more])
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err


def test_the_command_says_what_fits_without_data_weights_or_a_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, figures, said = run(capsys, "--ranks", "8", "activation_checkpointing=none")
    assert code == 1 and not figures["fits"]
    assert "IT DOES NOT FIT" in said and "it fits on no number of h100" in said
    assert figures["ways_out"][-1]["change"] == "activation_checkpointing=full"
    code, figures, said = run(capsys, "--ranks", "8", "--usd-per-gpu-hour", "2")
    assert code == 0 and figures["fits"] and "it fits" in said
    assert figures["usd"] == pytest.approx(16 * figures["hours"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ranks", "override", "words"),
    [
        (8, "packs_per_step=1", "packs_per_step=1 leaves 7 of 8 ranks without work; give packs"),
        (64, "parallel.replicas=8", "packs_per_step=8 leaves 56 of 64 ranks without work"),
        (8, "parallel.replicas=3", "which does not divide 8 ranks; give one of 1, 2, 4, 8"),
        (1, "parallel.replicas=2", "which does not divide 1 rank; give one of 1"),
    ],
)
def test_the_plan_refuses_the_ranks_that_the_run_refuses(
    capsys: pytest.CaptureFixture[str], ranks: int, override: str, words: str
) -> None:
    """It had said that they fit; the run's words are those of `test_train_ranks_faults`."""
    assert staged(["train", CONFIG, "--plan", "--ranks", str(ranks), override]) == 1
    said = capsys.readouterr()
    assert words in said.err and "fits" not in said.out


def test_what_cannot_be_planned_is_said(full: TrainSettings) -> None:
    with pytest.raises(ValueError, match="hf download someone/else --local-dir"):
        config_of("someone/else")
    with pytest.raises(ValueError, match="takes dtype=bfloat16, and dtype is float32"):
        forecast(replace(full, matmuls="float8", dtype="float32"), config_of(full.init))
    with pytest.raises(ValueError, match="a100-80 does not multiply float8"):
        tell(
            replace(full, matmuls="float8"),
            Machine(
                name="a100-80",
                gpu=GPUS["a100-80"],
                ranks=8,
                utilization=0.3,
                usd_per_gpu_hour=None,
            ),
        )
    with pytest.raises(SystemExit, match="2"):
        staged(["train", CONFIG, "--plan", "--utilization", "1.5"])


def test_the_miniature_is_planned_too(world: World, tmp_path: Path) -> None:
    job = TrainSettings(
        init="miniature:fresh", data=(Subset(path=tmp_path),), out=tmp_path, pack_tokens=2000
    )
    assert forecast(job, config_of(job.init)).total < 3 * GIB
