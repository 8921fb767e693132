"""The work of a step is counted as the masks have it, and compared with what a device can do."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import CONFIG
from torch.utils.flop_counter import FlopCounterMode
from training import ALL_KINDS, build, write_data

from staged.model.bagel import Bagel
from staged.model.work import expert_weights, train_flops, visible_pairs
from train.gpus import GPUS, rate_of
from train.job import Trainer
from train.packing import Pack
from train.settings import Log, ValidationSettings
from train.throughput import Throughput, rate_of_device


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> list[Pack]:
    """Of every kind of sample, with two noised copies of each sketch."""
    folder = tmp_path_factory.mktemp("work")
    world = build(folder, [kind(seed) for seed in (0, 10) for kind in ALL_KINDS])
    settings = world.settings(folder / "run", pack_tokens=1500, noised_copies=2)
    trainer = Trainer(settings)
    return [trainer.packs.build(number) for number in range(4)]


def test_pairs_are_those_of_the_masks(packs: list[Pack]) -> None:
    assert max(len(pack.layout.sample_lens) for pack in packs) > 2  # a filler is one
    for pack in packs:
        layout = pack.layout
        assert layout.noised.any()
        masks = [layout.mask(sample) for sample in range(len(layout.sample_lens))]
        assert visible_pairs(layout) == sum(int(torch.count_nonzero(mask)) for mask in masks)


def test_a_pass_is_what_its_matrices_take(packs: list[Pack]) -> None:
    """Forward, by torch's own counter, without what is counted as pairs."""
    model = Bagel(CONFIG)
    model.init_weights()
    layout, transformer = packs[0].layout, CONFIG.transformer
    linears = [m for layer in model.layers for m in layer.modules() if hasattr(m, "in_features")]
    entries = sum(m.in_features * m.out_features for m in linears)
    assert entries == 2 * expert_weights(transformer) * transformer.num_layers
    x = torch.ones(7, linears[0].in_features)
    with FlopCounterMode(display=False) as counter:
        linears[0](x)
    assert counter.get_total_flops() == 2 * 7 * linears[0].in_features * linears[0].out_features
    everything = train_flops(CONFIG, layout)
    parts = ("und", "gen", "vit", "connector", "words")
    saved = [everything - train_flops(CONFIG, layout, (part,)) for part in parts]
    # What is frozen saves the gradients of its weights; and below a frozen tower none is needed.
    latents = len(layout.latent_index)
    each = 2 * expert_weights(transformer) * transformer.num_layers
    assert saved[0] == (layout.num_tokens - latents) * each and saved[1] == latents * each
    assert min(saved) > 0
    frozen = train_flops(CONFIG, layout, parts)
    assert everything > frozen > everything / 3


def test_rates_are_found_by_what_drivers_say() -> None:
    for name, gpu in {
        "NVIDIA H100 80GB HBM3": "h100",
        "NVIDIA H200": "h200",
        "NVIDIA A100-SXM4-40GB": "a100-40",
        "NVIDIA A100 80GB PCIe": "a100-80",
        "NVIDIA B200": "b200",
        "NVIDIA L40S": "l40s",
        "NVIDIA GeForce RTX 4090": "rtx4090",
    }.items():
        assert rate_of(name) == GPUS[gpu].flops
    assert rate_of("NVIDIA H100 PCIe") == 756e12 and rate_of("Tesla T4") is None
    assert rate_of_device(torch.device("cpu"), torch.bfloat16) is None


def test_work_is_counted_beside_tokens() -> None:
    throughput = Throughput()
    throughput.add(10, 0.0, 1000)
    throughput.add(10, 0.0, 3000)
    assert throughput.flops_per_s == pytest.approx(200 * throughput.tokens_per_s, rel=0.5)


class Clock:
    """Stands still unless it is told what time has passed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        shown = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr("train.throughput.time", shown)

    def after(self, seconds: float, act: Any) -> Any:
        """`act`, which takes so long from now on."""

        def acts(*arguments: Any) -> Any:
            self.now += seconds
            return act(*arguments)

        return acts


def test_what_is_done_aside_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    throughput = Throughput()
    for _ in range(40):
        clock.now += 2.0
        throughput.add(10, 0.5, 1000)
        with pytest.raises(OSError, match="full"), throughput.aside():
            clock.now += 100.0
            raise OSError("full")
    assert throughput.step_s == 2.0 and throughput.tokens_per_s == 5.0
    assert throughput.flops_per_s == 500.0 and throughput.data_wait == 0.25


def test_rates_of_a_run_are_those_of_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of validation, pictures and states between them."""
    world = build(tmp_path, [kind(0) for kind in ALL_KINDS])
    write_data(tmp_path / "held_out", [kind(100) for kind in ALL_KINDS])
    settings = world.settings(
        tmp_path / "run",
        num_steps=4,
        checkpoint_every_steps=1,
        validation=ValidationSettings(data=(tmp_path / "held_out",), every_steps=1),
        log=Log(every_steps=1, sample_prompts=("a",), sample_every_steps=2),
    )
    trainer, clock = Trainer(settings), Clock(monkeypatch)
    for name, seconds in {"train_step": 3.0, "validate": 70, "sample": 800, "_save": 9000}.items():
        monkeypatch.setattr(trainer, name, clock.after(seconds, getattr(trainer, name)))
    trainer.run()
    lines = [json.loads(line) for line in (settings.out / "log.jsonl").read_text().splitlines()]
    assert [line["step_s"] for line in lines if line["step"]] == [3.0] * 4
    assert lines[-1]["memory_gib"] > 0
