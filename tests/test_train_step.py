"""One step: how losses are normalised, where gradients go, what the optimizer does with them."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn
from training import World, build, edit, one_shot, plan_sketch, understanding, write_data

from staged.model import checkpoint
from staged.model.attention import PackedAttention
from staged.model.bagel import Inputs
from staged.model.layout import Grids, Layout, SegmentKind, lay_out
from staged.model.loss import TokenLosses, token_losses
from staged.sequence import interleave
from train.ema import WeightAverage, averaged
from train.job import Trainer
from train.objective import Supervised, task_means, task_sums
from train.objective import mean_losses as share_of_step
from train.optimizer import learning_rate, make_optimizers, orthogonalise
from train.packing import Pack, _weighted, build_pack
from train.parts import PARTS, Part, part_of
from train.randomness import SampleRandom
from train.settings import ConditionDropout, OptimizerSettings, Subset, TrainSettings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


@pytest.fixture
def trainer(world: World, tmp_path: Path) -> Trainer:
    return Trainer(world.settings(tmp_path / "out", cache=world.folder / "cache"))


def pack_of(
    trainer: Trainer,
    samples: list[int],
    step: int = 0,
    randoms: Sequence[SampleRandom] | None = None,
) -> Pack:
    return build_pack(
        trainer.examples,
        samples,
        randoms or [SampleRandom(0, step, place) for place in range(len(samples))],
        special=trainer.examples.special,
        dropout=ConditionDropout(text=0, image=0),
        timestep_shift=1.0,
    )


def mean_losses(losses: TokenLosses, pack: Pack) -> tuple[Tensor, Tensor]:
    """Of a step that has this pack alone."""
    return share_of_step(losses, pack, Supervised.of(pack))


def sums_and_gradients(trainer: Trainer, pack: Pack) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Sums of both losses, and the gradient of their sum."""
    losses = trainer._forward(pack)
    ce, mse = losses.ce_sum(pack.layout), losses.mse_sum()
    gradients = torch.autograd.grad(ce + mse, list(trainer.parameters.values()))
    return ce.detach(), mse.detach(), dict(zip(trainer.parameters, gradients, strict=True))


# --- losses --------------------------------------------------------------------------------------


def test_the_loss_is_a_sum_over_tokens_divided_by_their_count(trainer: Trainer) -> None:
    pack = pack_of(trainer, [0, 3, 2])
    losses = trainer._forward(pack)
    ce, mse = mean_losses(losses, pack)
    weights = pack.layout.ce_weights
    torch.testing.assert_close(ce, (losses.ce * weights).sum() / weights.sum())
    torch.testing.assert_close(mse, losses.mse.mean())
    assert len(losses.ce) == len(pack.layout.labels) > 50
    assert len(losses.mse) == len(pack.layout.velocity_rows) > 20
    loss = trainer.settings.ce_weight * ce + mse
    assert trainer.train_step(pack)["loss"] == pytest.approx(loss.item(), rel=1e-6)


def test_how_samples_are_packed_changes_neither_loss_nor_gradient(trainer: Trainer) -> None:
    """The same samples (with their own noise) in one pack, or one by one."""
    samples = [0, 1, 2, 3, 4]
    ce, mse, gradients = sums_and_gradients(trainer, with_noise_by_sample(trainer, samples))
    parts = [
        sums_and_gradients(trainer, with_noise_by_sample(trainer, [sample])) for sample in samples
    ]
    torch.testing.assert_close(ce, sum(part[0] for part in parts), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mse, sum(part[1] for part in parts), rtol=1e-5, atol=1e-5)
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    for name, gradient in gradients.items():
        total = sum(part[2][name] for part in parts)
        torch.testing.assert_close(gradient, total, rtol=1e-4, atol=1e-6 * largest)


@pytest.mark.parametrize("parts", [[[0, 3], [2]], [[2], [0, 3]], [[0], [3], [2]]])
def test_a_step_over_several_packs_is_the_step_over_one_that_holds_them_all(
    trainer: Trainer, parts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packs of different sizes, one of which may have no image: a mean of means would differ."""
    nn.init.normal_(trainer.parameters["latent_out.weight"], std=0.1)
    whole = with_noise_by_sample(trainer, [0, 3, 2])
    packs = [with_noise_by_sample(trainer, samples) for samples in parts]
    at_once = gradients_of_a_step(trainer, [whole], monkeypatch)
    in_parts = gradients_of_a_step(trainer, packs, monkeypatch)
    assert in_parts[0] == pytest.approx(at_once[0], rel=1e-5)
    for name, gradient in at_once[1].items():
        torch.testing.assert_close(in_parts[1][name], gradient, rtol=2e-4, atol=1e-7)


def with_noise_by_sample(trainer: Trainer, samples: list[int]) -> Pack:
    """A pack in which a sample has the same noise wherever it lies."""
    return pack_of(trainer, samples, randoms=[SampleRandom(7, 0, sample) for sample in samples])


def gradients_of_a_step(
    trainer: Trainer, packs: list[Pack], monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """What a step reports, and the gradients that its optimizer would see; nothing is changed."""
    seen: dict[str, Tensor] = {}

    def note(lr: float) -> None:
        for name, parameter in trainer.parameters.items():
            assert parameter.grad is not None
            seen[name] = parameter.grad.clone()

    with monkeypatch.context() as patched:
        patched.setattr(trainer.optimizer, "step", note)
        return trainer.train_step(*packs), seen


def test_a_data_set_that_counts_twice_counts_like_two(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words twice and pictures three times, in one pack, in several, or as so many samples."""
    twice = Subset(path=world.data, ce_weight=2, mse_weight=3)
    data = (Subset(path=world.data), twice)
    trainer = Trainer(world.settings(tmp_path, cache=world.folder / "cache", data=data))
    nn.init.normal_(trainer.parameters["latent_out.weight"], std=0.1)
    count = len(trainer.examples) // 2
    plain, heavy = [0, 3], 1 + count

    def gradients(samples: list[list[int]]) -> dict[str, Tensor]:
        packs = [with_noise_by_sample(trainer, pack) for pack in samples]
        seen = gradients_of_a_step(trainer, packs, monkeypatch)[1]
        return {name: gradient.clone() for name, gradient in seen.items()}

    pack = with_noise_by_sample(trainer, [heavy])
    again = pack_of(trainer, [heavy - count], randoms=[SampleRandom(7, 0, heavy)])
    assert torch.equal(pack.layout.ce_weights, 2 * again.layout.ce_weights)
    assert torch.equal(pack.velocity_weights, 3 * again.velocity_weights)
    supervised = Supervised.of(pack), Supervised.of(again)
    assert supervised[0].latents == 3 * supervised[1].latents > 0
    whole = gradients([[*plain, heavy]])
    for name, gradient in gradients([plain, [heavy]]).items():
        torch.testing.assert_close(gradient, whole[name], rtol=2e-4, atol=1e-7)
    # A sample without pictures, so that its words alone count.
    talk = 2
    assert not len(pack_of(trainer, [talk]).layout.velocity_rows)
    repeated = [SampleRandom(7, 0, n) for n in (0, talk, talk)]
    packs = (
        [with_noise_by_sample(trainer, [0, talk + count])],
        [pack_of(trainer, [0, talk, talk], randoms=repeated)],
    )
    one, other = (gradients_of_a_step(trainer, packs_, monkeypatch) for packs_ in packs)
    assert one[0]["loss"] == pytest.approx(other[0]["loss"], rel=1e-5)
    for name, gradient in one[1].items():
        torch.testing.assert_close(other[1][name], gradient, rtol=2e-4, atol=1e-7)


def test_words_that_count_nothing_are_context(world: World, tmp_path: Path) -> None:
    data = (Subset(path=world.data, ce_weight=0),)
    trainer = Trainer(world.settings(tmp_path, cache=world.folder / "cache", data=data))
    record = trainer.train_step(next(trainer.packs.from_step(0)))
    assert record["ce"] == 0 and record["loss"] == record["mse"] > 0
    assert not any(name.startswith("ce/") for name in record)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"ce_weight": -1}, "ce_weight"),
        ({"mse_weight": float("nan")}, "mse_weight"),
        ({"ce_weight": 0, "mse_weight": 0}, "teaches nothing; leave it out"),
    ],
)
def test_weights_that_mean_nothing_are_told(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Subset(path=Path("data"), **weights)  # type: ignore[arg-type]


def test_losses_by_task_add_up_to_the_loss(trainer: Trainer) -> None:
    pack = pack_of(trainer, [0, 1, 2, 3, 4, 5])
    losses = trainer._forward(pack)
    by_task = task_means([task_sums(losses, pack)])
    assert set(by_task) == {
        *(f"ce/{task}" for task in ("one_shot", "edit", "understanding", "staged", "plan_sketch")),
        *(f"mse/{task}" for task in ("one_shot", "edit", "staged", "plan_sketch")),
    }
    alone = pack_of(trainer, [2])
    ce, _ = mean_losses(trainer._forward(alone), alone)
    assert by_task["ce/understanding"] == pytest.approx(ce.item(), rel=1e-4)
    _, mse = mean_losses(losses, pack)
    weighted = 0.0
    for task, samples in {
        "one_shot": [0, 5],
        "edit": [1],
        "staged": [3],
        "plan_sketch": [4],
    }.items():
        count = len(pack_of(trainer, samples).layout.velocity_rows)
        weighted += by_task[f"mse/{task}"] * count / len(losses.mse)
    assert weighted == pytest.approx(mse.item(), rel=1e-5)


def test_a_pack_without_words_or_without_images_has_a_loss_of_0_there(
    world: World, tmp_path: Path
) -> None:
    silent = one_shot(0)
    silent = replace(
        silent, steps=tuple(replace(step, loss=i == 0) for i, step in enumerate(silent.steps))
    )
    data = (Subset(path=write_data(tmp_path / "data", [understanding(0), silent])),)
    trainer = Trainer(world.settings(tmp_path / "out", data=data))
    record = trainer.train_step(pack_of(trainer, [0]))
    assert record["mse"] == 0 and record["ce"] > 0
    record = trainer.train_step(pack_of(trainer, [1]))
    assert record["mse"] > 0 and record["ce"] > 0  # "an image comes" is a word too


# --- gradients -----------------------------------------------------------------------------------


def test_gradients_reach_every_parameter_when_a_pack_has_every_kind_of_token(
    trainer: Trainer,
) -> None:
    # A fresh velocity head is zero and would hide what lies below it.
    nn.init.normal_(trainer.parameters["latent_out.weight"], std=0.1)
    pack = pack_of(trainer, [0, 1, 2, 3, 4])
    assert set(pack.layout.modes.tolist()) == set(SegmentKind)
    _, _, gradients = sums_and_gradients(trainer, pack)
    # A key bias shifts all scores of a query alike; softmax does not see it in the ViT.
    unseen = {name for name in gradients if name.startswith("vision.") and "k_proj.bias" in name}
    untouched = {name for name, gradient in gradients.items() if not gradient.any()}
    assert untouched <= unseen
    rows = trainer.parameters["embed_tokens.weight"]
    used = set(pack.layout.token_ids.tolist())
    reached = set(gradients["embed_tokens.weight"].any(dim=1).nonzero().flatten().tolist())
    assert reached <= used and len(reached) > 0.9 * len(used) and len(rows) > len(used)


def test_every_parameter_is_trained_whatever_a_pack_lacks(trainer: Trainer) -> None:
    """Sharded training hangs, and resuming fails, where a parameter has no gradient at all."""
    for samples in ([0], [2], [3]):
        losses = trainer._forward(pack_of(trainer, samples))
        ce, mse = losses.ce.sum(), losses.mse.sum()
        (ce + mse).backward()
        assert [n for n, p in trainer.parameters.items() if p.grad is None] == []
        trainer.optimizer.zero_grad()


def test_a_few_samples_are_learned_by_heart(world: World, tmp_path: Path) -> None:
    kinds = [one_shot(1), edit(2), understanding(3), plan_sketch(4)]
    settings = world.settings(
        tmp_path / "out",
        data=(Subset(path=write_data(tmp_path / "data", kinds)),),
        pack_tokens=1000,
        num_steps=80,
        dropout=ConditionDropout(text=0, image=0),
        optimizer=OptimizerSettings(lr=1e-2, warmup_steps=10, ema_decay=0.9),
    )
    trainer = Trainer(settings)
    fixed = pack_of(trainer, [0, 1, 2, 3])

    def measure() -> tuple[float, float]:
        with torch.no_grad():
            ce, mse = mean_losses(trainer._forward(fixed), fixed)
        return ce.item(), mse.item()

    ce, mse = measure()
    for trainer.step in range(settings.num_steps):
        trainer.train_step(fixed)
    ce_after, mse_after = measure()
    assert ce_after < ce / 20
    assert mse_after < mse / 5


def test_bfloat16_computes_nearly_the_same_and_trains_float32_weights(
    world: World, trainer: Trainer, tmp_path: Path
) -> None:
    nn.init.normal_(trainer.parameters["latent_out.weight"], std=0.02)
    narrow = Trainer(world.settings(tmp_path / "bf16", dtype="bfloat16"))
    narrow.model.load_state_dict(trainer.model.state_dict())
    pack = pack_of(trainer, [0, 1, 3])
    expected, record = trainer.train_step(pack), narrow.train_step(pack)
    assert record["loss"] == pytest.approx(expected["loss"], rel=0.02)
    assert record["loss"] != expected["loss"]
    assert record["grad_norm"] == pytest.approx(expected["grad_norm"], rel=0.05)
    assert {p.dtype for p in narrow.parameters.values()} == {torch.float32}


# --- optimizer -----------------------------------------------------------------------------------


def test_the_rate_warms_up_then_falls_along_a_cosine() -> None:
    settings = OptimizerSettings(lr=2.0, warmup_steps=4, min_lr_ratio=0.1)
    rates = [learning_rate(step, 24, settings) for step in range(25)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0
    assert rates[14] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert rates[9] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))))
    assert rates[24] == pytest.approx(0.2)
    assert all(later <= rate for rate, later in pairwise(rates[4:]))


def test_a_constant_rate_stays_and_a_run_may_be_shorter_than_its_warm_up() -> None:
    constant = OptimizerSettings(lr=1.0, warmup_steps=2, schedule="constant")
    assert [learning_rate(step, 5, constant) for step in range(5)] == [0.5, 1, 1, 1, 1]
    short = OptimizerSettings(lr=1.0, warmup_steps=10)
    assert [learning_rate(step, 2, short) for step in range(2)] == [0.1, 0.2]
    assert learning_rate(0, 10, OptimizerSettings(lr=1.0, warmup_steps=0)) == 1.0


def test_the_average_forgets_its_start_by_step() -> None:
    parameter = torch.tensor([0.0])
    average = WeightAverage({"w": parameter}, decay=0.5)
    value, parameter = 0.0, torch.tensor([1.0])
    for step in range(12):
        average.update([parameter], step)
        decay = min(0.5, (1 + step) / (10 + step))
        value = decay * value + (1 - decay) * 1.0
        assert average.tensors["w"].item() == pytest.approx(value, rel=1e-6)
    assert min(0.5, 12 / 21) == 0.5  # the bound was reached on the way


def test_averaged_weights_stand_in_for_a_while_also_through_an_error() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    average = WeightAverage({"w": torch.tensor([5.0])}, decay=0.5)
    with pytest.raises(RuntimeError), averaged({"w": parameter}, average):
        assert parameter.item() == 5.0
        raise RuntimeError
    assert parameter.item() == 1.0
    assert average.tensors["w"].item() == 5.0
    with averaged({"w": parameter}, None):
        assert parameter.item() == 1.0


def test_weight_decay_is_for_matrices_only() -> None:
    parameters = {
        "lm_head.weight": nn.Parameter(torch.ones(2, 2)),
        "latent_in.bias": nn.Parameter(torch.ones(2)),
    }
    settings = OptimizerSettings(lr=0.1, weight_decay=0.5)
    optimizer = make_optimizers(parameters, settings, torch.float32)
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(lr=0.1)
    torch.testing.assert_close(parameters["lm_head.weight"].detach(), torch.full((2, 2), 0.95))
    torch.testing.assert_close(parameters["latent_in.bias"].detach(), torch.ones(2))


def test_muon_takes_the_matrices_of_the_decoder_and_turns_every_direction_alike() -> None:
    parameters = {
        "layers.0.und.q_proj.weight": nn.Parameter(torch.zeros(4, 8)),
        "layers.0.und.q_proj.bias": nn.Parameter(torch.zeros(4)),
        "embed_tokens.weight": nn.Parameter(torch.zeros(4, 8)),
    }
    optimizer = make_optimizers(
        parameters, OptimizerSettings(kind="muon", weight_decay=0.0), torch.float32
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 1e-3
    optimizer.step(lr=0.1)
    kept = {name: sorted(optimizer.state_of(p)) for name, p in parameters.items()}
    assert kept == {
        "layers.0.und.q_proj.weight": ["momentum"],
        "layers.0.und.q_proj.bias": ["exp_avg", "exp_avg_sq", "step"],
        "embed_tokens.weight": ["exp_avg", "exp_avg_sq", "step"],
    }
    moved = torch.linalg.svdvals(parameters["layers.0.und.q_proj.weight"].detach())
    per_direction = moved / (0.1 * 0.2 * 8**0.5)
    assert float(per_direction.min()) > 0.6 and float(per_direction.max()) < 1.3


@pytest.mark.parametrize("shape", [(3, 4, 9), (2, 9, 4)])
def test_stacked_matrices_are_made_orthogonal_one_by_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    together = orthogonalise(matrices)
    for matrix, alone in zip(matrices, together, strict=True):
        torch.testing.assert_close(orthogonalise(matrix[None])[0], alone, rtol=1e-4, atol=1e-5)
        values = torch.linalg.svdvals(alone)
        assert float(values.min()) > 0.6 and float(values.max()) < 1.3
        # The directions stay: U and V of the matrix are those of the result.
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        off = u.mT @ alone @ v.mT
        off = off - off.diagonal().diag()
        assert float(off.abs().max()) < 1e-2


def test_gradients_are_scaled_down_to_the_norm_that_is_allowed(
    world: World, tmp_path: Path
) -> None:
    def moments(max_grad_norm: float) -> tuple[dict[str, Any], float]:
        optimizer = OptimizerSettings(max_grad_norm=max_grad_norm)
        trainer = Trainer(world.settings(tmp_path / f"{max_grad_norm}", optimizer=optimizer))
        record = trainer.train_step(pack_of(trainer, [0, 1]))
        state = trainer.optimizer.state_of
        squares = sum(state(p)["exp_avg"].square().sum() for p in trainer.parameters.values())
        return record, float(squares) ** 0.5 / (1 - optimizer.betas[0])

    record, used = moments(1e9)
    assert used == pytest.approx(record["grad_norm"], rel=1e-4)
    clipped, used = moments(record["grad_norm"] / 4)
    assert clipped["grad_norm"] == pytest.approx(record["grad_norm"], rel=1e-6)
    assert used == pytest.approx(record["grad_norm"] / 4, rel=1e-4)


# --- parts ---------------------------------------------------------------------------------------


def test_every_parameter_belongs_to_a_part_and_every_part_has_some(trainer: Trainer) -> None:
    named = Counter(part_of(name) for name, _ in trainer.model.named_parameters())
    assert set(named) == set(PARTS)
    with pytest.raises(KeyError, match="stranger"):
        part_of("stranger.weight")


@pytest.mark.parametrize("parts", [("und", "vit", "connector", "words"), ("gen", "latents")])
def test_what_is_frozen_stays_and_all_else_learns(
    world: World, tmp_path: Path, parts: tuple[Part, ...]
) -> None:
    trainer = Trainer(world.settings(tmp_path / "out", freeze=parts))
    nn.init.normal_(trainer.model.latent_out.weight, std=0.1)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train_step(pack_of(trainer, [0, 1, 2, 3, 4]))
    for name, parameter in trainer.model.named_parameters():
        same = torch.equal(parameter, before[name])
        assert same == (part_of(name) in parts) or "k_proj.bias" in name, name


def test_a_run_with_frozen_parts_continues_bit_for_bit_and_exports_all(
    world: World, tmp_path: Path
) -> None:
    settings = world.settings(tmp_path / "whole", freeze=("und", "vit"), num_steps=4)
    whole = checkpoint.load(Trainer(settings).run()).model.state_dict()
    parted = replace(settings, out=tmp_path / "parted")
    first = Trainer(parted)
    for pack in islice(first.packs.from_step(0), 2):
        first.train_step(pack)
        first.step += 1
    first.state.save(2, first.parameters, first.optimizer, first.average)
    again = checkpoint.load(Trainer(parted).run()).model.state_dict()
    start = checkpoint.load(settings.init).model.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
    for name, tensor in start.items():
        frozen = ".und." in name or name.startswith("vision.") or name.endswith("_positions")
        assert not frozen or torch.equal(whole[name], tensor), name


def test_parts_learn_at_rates_of_their_own(world: World, tmp_path: Path) -> None:
    """AdamW's first step is as long as the rate, whatever the gradient."""
    optimizer = OptimizerSettings(
        lr=1e-3, warmup_steps=0, ema_decay=0, lr_ratios={"vit": 0.1, "gen": 2.0}
    )
    trainer = Trainer(world.settings(tmp_path / "out", optimizer=optimizer))
    nn.init.normal_(trainer.model.latent_out.weight, std=0.1)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train_step(pack_of(trainer, [0, 1, 2, 3, 4]))
    longest: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    for name, parameter in trainer.model.named_parameters():
        moved = (parameter - before[name]).abs().max().item()
        longest[part_of(name)] = max(longest[part_of(name)], moved)
    rates = {part: optimizer.lr_ratios.get(part, 1.0) * 1e-3 for part in PARTS}
    assert longest == pytest.approx(rates, rel=1e-2)


def test_freezing_everything_or_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="every part"):
        TrainSettings(init="x", data=(Subset(path=Path("x")),), out=Path("x"), freeze=PARTS)
    with pytest.raises(ValueError, match="'eyes'; parts are und"):
        OptimizerSettings(lr_ratios={"eyes": 1.0})
    with pytest.raises(ValueError, match="more than 0"):
        OptimizerSettings(lr_ratios={"vit": 0.0})


# --- copies --------------------------------------------------------------------------------------


def test_copies_of_a_sketch_teach_what_as_many_samples_with_one_each_do() -> None:
    """Losses and gradients of several copies over one context, against a context for each."""
    worker = tiny.engine()
    model, special = worker.model.train(), worker.tokenizer.special
    several, one = (
        interleave(
            plan_sketch(0), worker.tokenizer.encode, special, lambda _: Grids((2, 3), (2, 2)), None,
            noised_copies=copies,
        ).segments
        for copies in (3, 1)
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)

    def random(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator)

    layout, dim = lay_out([several], special), model.config.latent_token_dim
    latents, target = (random(len(layout.latent_index), dim) for _ in range(2))
    times = torch.rand(len(layout.latent_index), generator=generator) * layout.noised
    patches = random(len(layout.vision_index), model.config.vision.patch_dim)

    def losses(rows: Tensor, layout: Layout) -> TokenLosses:
        inputs = Inputs(latents[rows], times[rows], patches)
        hidden = model(layout, inputs, PackedAttention(layout))
        return token_losses(model, hidden, layout, target[rows])

    def gradients(loss: Tensor) -> list[Tensor]:
        parameters = list(model.parameters())
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [
            torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
        ]

    together = losses(torch.arange(len(latents)), layout)
    # The latent rows of each copy with all that is clean: copies of a sketch follow one another.
    rows: list[list[int]] = [[], [], []]
    start = turn = 0
    for segment in several:
        if segment.kind not in (SegmentKind.NOISED, SegmentKind.CLEAN):
            continue
        held = range(start, start + segment.num_tokens - 2)
        start = held.stop
        for copy in range(3):
            if segment.kind is SegmentKind.CLEAN or turn % 3 == copy:
                rows[copy] += held
        turn += segment.kind is SegmentKind.NOISED
    assert turn and turn % 3 == 0 and start == len(latents)
    alone = [losses(torch.tensor(of_copy), lay_out([one], special)) for of_copy in rows]
    layout_of_one = lay_out([one], special)
    torch.testing.assert_close(together.ce, alone[0].ce)
    loss = together.ce_sum(layout) + together.mse_sum()
    parts = alone[0].ce_sum(layout_of_one) + sum(copy.mse_sum() for copy in alone)
    torch.testing.assert_close(loss, parts)
    for found, expected in zip(gradients(loss), gradients(parts), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_pack_without_samples_has_no_losses_and_weighs_nothing() -> None:
    none = torch.zeros(0, 4)
    layout, weights = _weighted(lay_out([], tiny.tokenizer().special), [])
    pack = Pack(layout, Inputs(none, none[:, 0], none), none, (), weights)
    assert weights.shape == (0,)
    assert task_sums(TokenLosses(ce=none[:, 0], mse=none), pack) == {}
