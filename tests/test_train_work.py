"""The work of a step is counted as the masks have it, and compared with what a device can do."""

import pytest
import torch
from tiny import CONFIG
from torch.utils.flop_counter import FlopCounterMode
from training import ALL_KINDS, build

from staged.model.bagel import Bagel
from staged.model.work import expert_weights, train_flops, visible_pairs
from train.gpus import GPUS, rate_of
from train.job import Trainer
from train.packing import Pack
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
    for pack in packs:
        layout = pack.layout
        assert layout.noised.any() and len(layout.sample_lens) > 2  # a filler is one
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
