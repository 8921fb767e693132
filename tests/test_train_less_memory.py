"""Activation checkpointing and cross entropy in pieces: less memory, the same numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training import World, build, train

from staged.model import cross_entropy as pieces
from staged.model.cross_entropy import WordHead
from staged.model.recompute import RecomputingLayer
from train.job import Trainer
from train.live_bytes import LiveBytes
from train.settings import TrainSettings

Mode = Literal["none", "selective", "full"]
MODES: tuple[Mode, ...] = ("selective", "full")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


def step_of(settings: TrainSettings) -> tuple[dict[str, float], dict[str, Tensor], int]:
    """Losses, gradients and most bytes of tensors of a first step."""
    trainer = Trainer(settings)
    velocity = trainer.parameters["latent_out.weight"]
    nn.init.normal_(velocity, std=0.1, generator=torch.Generator().manual_seed(0))
    pack = next(trainer.packs.from_step(0))
    with LiveBytes() as counted:
        losses = trainer._forward(pack)
        (losses.ce.sum() + losses.mse.sum()).backward()
    gradients = {n: p.grad for n, p in trainer.parameters.items() if p.grad is not None}
    sums = {"ce": losses.ce.sum().item(), "mse": losses.mse.sum().item()}
    return sums, gradients, counted.peak


# --- activation checkpointing --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", MODES)
def test_what_is_made_again_gives_the_same_gradients_bit_by_bit(
    world: World, tmp_path: Path, mode: Mode, dtype: Literal["float32", "bfloat16"]
) -> None:
    """In bfloat16 the narrow copies that stood for the weights must stand for them once more."""
    plain = world.settings(tmp_path / "plain", dtype=dtype, num_workers=0)
    losses, gradients, _ = step_of(plain)
    again = replace(plain, out=tmp_path / mode, activation_checkpointing=mode)
    found, made, _ = step_of(again)
    assert found == losses
    assert made.keys() == gradients.keys()
    assert [name for name in made if not torch.equal(made[name], gradients[name])] == []


def test_each_mode_keeps_less_than_the_one_before(world: World, tmp_path: Path) -> None:
    settings = world.settings(tmp_path, pack_tokens=2000, num_workers=0)
    modes: tuple[Mode, ...] = ("none", *MODES)
    peaks = [
        step_of(replace(settings, out=tmp_path / mode, activation_checkpointing=mode))[2]
        for mode in modes
    ]
    assert peaks[0] > 1.5 * peaks[1] > 1.5 * peaks[2], dict(zip(modes, peaks, strict=True))


def test_every_layer_of_decoder_and_tower_is_told(world: World, tmp_path: Path) -> None:
    trainer = Trainer(world.settings(tmp_path, activation_checkpointing="full"))
    layers = [layer for layer in trainer.model.modules() if isinstance(layer, RecomputingLayer)]
    assert len(layers) == len(trainer.model.layers) + len(trainer.model.vision.layers)
    assert {layer.recompute for layer in layers} == {"full"}


def test_a_run_that_makes_activations_again_learns_the_same(world: World, tmp_path: Path) -> None:
    plain = world.settings(tmp_path / "plain", num_steps=3)
    expected = train(plain)
    found = train(replace(plain, out=tmp_path / "full", activation_checkpointing="full"))
    assert found["ema.safetensors"] == expected["ema.safetensors"]


# --- cross entropy -------------------------------------------------------------------------------


def by_one_product(head: WordHead, hidden: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(head(hidden).float(), labels, reduction="none")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 7, 64, 100])
def test_pieces_give_the_losses_and_gradients_of_the_whole(dtype: torch.dtype, rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    head = WordHead(32, 500).to(dtype)
    nn.init.normal_(head.weight, std=0.2, generator=generator)
    hidden = torch.randn(64, 32, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(500, (64,), generator=generator)
    weights = torch.rand(64, generator=generator)
    expected = by_one_product(head, hidden, labels)
    wanted = torch.autograd.grad((expected * weights).sum(), [hidden, head.weight])
    found = pieces._Pieces.apply(hidden, head.weight, labels, rows)  # type: ignore[no-untyped-call]
    gradients = torch.autograd.grad((found * weights).sum(), [hidden, head.weight])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    for gradient, reference in zip(gradients, wanted, strict=True):
        assert gradient.dtype == dtype
        scale = reference.abs().max().item()
        torch.testing.assert_close(gradient, reference, rtol=bound, atol=bound * scale)


def test_a_frozen_head_gets_no_gradient_and_passes_one_on() -> None:
    head = WordHead(8, 20).requires_grad_(False)
    hidden = torch.randn(6, 8, requires_grad=True)
    pieces._Pieces.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, torch.arange(6), 4
    ).sum().backward()
    assert head.weight.grad is None and hidden.grad is not None and hidden.grad.any()


def test_pieces_hold_no_more_logits_than_is_said() -> None:
    head, hidden = WordHead(16, 50_000), torch.randn(256, 16, requires_grad=True)
    labels, mib = torch.arange(256), 2
    peaks = []
    for limit in (mib, 1024):
        with LiveBytes() as counted:
            head(hidden, labels, limit).sum().backward()
        head.weight.grad = hidden.grad = None
        peaks.append(counted.peak)
    weight, all_logits = 4 * 50_000 * 16, 4 * 50_000 * 256
    # Beside the pieces: the weight's gradient, one piece's share of it, and the sum.
    assert peaks[0] < 3 * weight + 4 * (mib << 20) < all_logits < peaks[1]


def test_a_run_with_pieces_learns_what_one_without_does(world: World, tmp_path: Path) -> None:
    plain = world.settings(tmp_path / "plain", num_workers=0)
    losses, gradients, _ = step_of(plain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "staged.model.bagel.Bagel.cross_entropy",
            lambda self, hidden, labels, max_logits_mib: pieces._Pieces.apply(
                hidden, self.lm_head.weight, labels, 5
            ),
        )
        found, made, _ = step_of(replace(plain, out=tmp_path / "pieces"))
    assert found == pytest.approx(losses, rel=1e-5)
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(made[name], gradient, rtol=1e-4, atol=1e-6 * largest)
