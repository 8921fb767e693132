"""What a pack holds: the plan of samples, what is dropped, times and noise, and how it is read."""

from collections import Counter
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import sketch
from training import (
    ALL_KINDS,
    World,
    build,
    edit,
    one_shot,
    plan_sketch,
    staged,
    understanding,
    write_data,
)

from staged.model.codec import ImageCodec
from staged.model.layout import SegmentKind
from staged.sequence import Dropout, interleave
from staged.trajectory import Inspection, Plan, Refinement, Sketch, Stop, Trajectory
from train.examples import Examples
from train.job import Trainer
from train.packing import Pack, build_pack, draw_dropout
from train.plan import PackPlan
from train.randomness import SampleRandom
from train.settings import ConditionDropout, Subset

LENGTHS = np.random.default_rng(0).integers(5, 40, 50)


def plan_of(**changes: Any) -> PackPlan:
    arguments: dict[str, Any] = {
        "lengths": LENGTHS, "repeats": np.ones(50), "pack_tokens": 100, "seed": 3,
    }  # fmt: skip
    return PackPlan(**(arguments | changes))


def first_packs(plan: PackPlan, count: int) -> list[list[tuple[int, int]]]:
    return [plan.pack(step) for step in range(count)]


def test_each_epoch_holds_every_sample_once_in_a_new_order_and_fills_its_packs() -> None:
    packs = first_packs(plan_of(), 60)
    for epoch in range(3):
        samples = [sample for pack in packs for sample, when in pack if when == epoch]
        assert sorted(samples) == list(range(50))
    orders = [[s for pack in packs for s, when in pack if when == epoch] for epoch in range(2)]
    assert orders[0] != orders[1]
    tokens = [sum(int(LENGTHS[sample]) for sample, _ in pack) for pack in packs]
    assert max(tokens) <= 100
    full = [n for n, pack, after in zip(tokens, packs, packs[1:], strict=False)
            if pack[0][1] == after[0][1]]  # fmt: skip
    assert min(full) > 100 - LENGTHS.max()


def test_packs_are_full_with_samples_of_a_quarter_of_a_pack_and_come_in_the_order_drawn() -> None:
    """One pack at a time leaves a seventh free; like lengths together would bring like tasks."""
    images = np.random.default_rng(0).integers(3, 6, 2000)
    lengths = images * 2048 + 500
    plan = plan_of(lengths=lengths, repeats=np.ones(2000), pack_tokens=33_000)
    packs = []
    while (pack := plan.pack(len(packs)))[0][1] == 0:
        packs.append([sample for sample, _ in pack])
    assert np.mean([lengths[pack].sum() for pack in packs]) > 0.905 * 33_000
    place_of = {int(sample): place for place, sample in enumerate(plan._order(0))}
    first_to_last = [place_of[sample] for pack in packs for sample in pack]
    late = np.abs(np.array(first_to_last) - np.arange(2000))
    assert late.max() < 60
    images_of_a_pack = [images[pack].mean() for pack in packs]
    assert np.std(images_of_a_pack) < np.std(images) / 2 + 0.2


def test_the_plan_of_a_step_depends_on_nothing_before_it() -> None:
    expected = first_packs(plan_of(), 60)
    jumping = plan_of()
    assert [jumping.pack(step) for step in (47, 3, 4, 59, 0)] == [
        expected[step] for step in (47, 3, 4, 59, 0)
    ]
    assert first_packs(plan_of(seed=4), 5) != expected[:5]


def test_samples_come_as_often_as_their_repeats_say() -> None:
    repeats = np.array([2.0, 0.25, 1.5] + [1.0] * 47)
    counts: Counter[int] = Counter()
    plan = plan_of(repeats=repeats)
    step, epochs = 0, 400
    while (pack := plan.pack(step))[0][1] < epochs:
        counts.update(sample for sample, epoch in pack if epoch < epochs)
        step += 1
    assert counts[0] == 2 * epochs
    assert counts[5] == epochs
    assert counts[1] == pytest.approx(0.25 * epochs, abs=4 * (epochs * 0.1875) ** 0.5)
    assert counts[2] == pytest.approx(1.5 * epochs, abs=4 * (epochs * 0.25) ** 0.5)


def test_epochs_that_fractional_repeats_leave_empty_are_passed_over() -> None:
    plan = plan_of(lengths=np.array([7]), repeats=np.array([0.1]))
    packs = first_packs(plan, 20)
    assert all(len(pack) == 1 for pack in packs)
    epochs = [pack[0][1] for pack in packs]
    assert epochs == sorted(set(epochs))
    assert epochs[-1] > 40


# --- dropout -------------------------------------------------------------------------------------


def draws(trajectory: Trajectory, text: float, image: float, count: int = 400) -> list[Dropout]:
    probabilities = ConditionDropout(text=text, image=image)
    return [
        draw_dropout(trajectory, probabilities, SampleRandom(0, step, 0)) for step in range(count)
    ]


def always(trajectory: Trajectory) -> Dropout:
    [dropout] = draws(trajectory, 1, 1, count=1)
    return dropout


def test_what_only_draws_may_go_without_prompt_and_input_images() -> None:
    assert always(one_shot(0)) == Dropout(prompt=True, images=frozenset({0}))
    assert always(edit(0)) == Dropout(prompt=True, images=frozenset({0, 1}))


def test_an_answer_keeps_its_question_and_its_image() -> None:
    assert always(understanding(0)) == Dropout()


def test_supervised_words_keep_prompt_and_the_inspected_sketches() -> None:
    """In `staged`, a refinement precedes the supervised sketch; both sketches are inspected."""
    assert always(staged(0)) == Dropout(plans=frozenset({6}))
    assert always(plan_sketch(0)) == Dropout(plans=frozenset({0, 2}), images=frozenset({0, 1}))


def test_the_plan_of_a_sketch_that_is_only_looked_at_stays() -> None:
    steps = staged(0).steps
    trajectory = Trajectory(prompt="p", steps=steps[3:])  # plan, wrong sketch, its inspection, ...
    assert isinstance(trajectory.steps[1], Sketch) and not trajectory.steps[1].loss
    assert 0 not in always(trajectory).plans


def test_a_plan_is_dropped_together_with_its_inspection() -> None:
    accepted = Inspection(target="plan", verdict="accept", critique="fine")
    steps = (*staged(0).steps[:4], accepted, sketch(0), Stop())
    assert always(Trajectory(prompt="p", steps=steps)).plans == {3, 4}


def test_a_sketch_whose_inspection_is_not_supervised_may_be_dropped() -> None:
    steps = list(staged(0).steps)
    steps[5] = replace(steps[5], loss=False)
    assert always(Trajectory(prompt="p", steps=tuple(steps))).images == {0}


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_whatever_is_dropped_leaves_a_sample_that_can_be_laid_out(world: World, kind: Any) -> None:
    examples = trainer_of(world).examples
    trajectory = kind(0)
    speaks = any(step.loss and not isinstance(step, Sketch | Stop) for step in trajectory.steps)
    for dropout in draws(trajectory, 0.5, 0.5, count=60):
        result = interleave(
            trajectory, examples.encode, examples.special, examples.grids_of, dropout
        )
        copies: dict[int, set[bool]] = {}
        for segment, image in zip(result.segments, result.images, strict=True):
            if segment.kind in (SegmentKind.CLEAN, SegmentKind.VISION):
                assert image is not None
                copies.setdefault(image, set()).add(segment.dropped)
            assert not (segment.kind is SegmentKind.NOISED and segment.dropped)
        assert all(len(dropped) == 1 for dropped in copies.values()), "one copy without the other"
        if speaks:
            assert not dropout.prompt
        for index in dropout.plans:
            assert isinstance(trajectory.steps[index], Plan | Refinement | Inspection)
            after = trajectory.steps[index + 1]
            assert isinstance(after, Sketch) or index + 1 in dropout.plans
        shown = len(trajectory.inputs)
        for index, step in enumerate(trajectory.steps):
            if isinstance(step, Sketch):
                after = trajectory.steps[index + 1]
                if isinstance(after, Inspection) and after.loss:
                    assert shown not in dropout.images
                shown += 1


def test_conditions_are_dropped_as_often_as_asked_and_independently() -> None:
    count = 4000
    drawn = draws(edit(0), 0.1, 0.3, count)
    error = 4 * (0.25 / count) ** 0.5
    prompts = np.array([dropout.prompt for dropout in drawn])
    images = np.array([0 in dropout.images for dropout in drawn])
    assert prompts.mean() == pytest.approx(0.1, abs=error)
    assert images.mean() == pytest.approx(0.3, abs=error)
    assert (prompts & images).mean() == pytest.approx(0.03, abs=error)
    assert all(dropout == Dropout() for dropout in draws(edit(0), 0, 0))


# --- times and noise -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


def trainer_of(world: World, **changes: Any) -> Trainer:
    return Trainer(world.settings(world.folder / "out", **changes))


def pack_of(
    examples: Examples,
    samples: list[int],
    *,
    step: int = 0,
    shift: float = 1.0,
    seed: int = 0,
    copies: int = 1,
) -> Pack:
    return build_pack(
        examples,
        samples,
        [SampleRandom(seed, step, place) for place in range(len(samples))],
        special=examples.special,
        dropout=ConditionDropout(text=0, image=0),
        timestep_shift=shift,
        noised_copies=copies,
    )


def assert_equal(one: Any, other: Any) -> None:
    """Equal packs, tensor by tensor."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
    elif hasattr(one, "__dataclass_fields__"):
        for name in one.__dataclass_fields__:
            assert_equal(getattr(one, name), getattr(other, name))
    else:
        assert one == other


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_times_are_a_shifted_sigmoid_of_a_normal_and_clean_copies_stand_at_0(
    world: World, shift: float
) -> None:
    examples = trainer_of(world).examples
    times = []
    for step in range(500):
        pack = pack_of(examples, [0], step=step, shift=shift)  # one shot: noised, clean
        noised = pack.inputs.timesteps[pack.layout.noised]
        assert len(set(noised.tolist())) == 1, "one time an image"
        assert pack.inputs.timesteps[~pack.layout.noised].eq(0).all()
        times.append(noised[0].item())
    t = np.sort(np.array(times))
    # Undo the shift, then the sigmoid: what is left is standard normal (Kolmogorov-Smirnov, 0.1%).
    unshifted = t / (shift - (shift - 1) * t)
    normal = torch.from_numpy(np.log(unshifted / (1 - unshifted)))
    expected = (0.5 * (1 + torch.erf(normal / 2**0.5))).numpy()
    assert np.abs(expected - (np.arange(500) + 0.5) / 500).max() < 1.95 / 500**0.5


def test_noised_copies_are_on_the_line_from_latents_to_noise_and_the_target_is_its_slope(
    world: World,
) -> None:
    examples = trainer_of(world).examples
    pack = pack_of(examples, [0])
    latents = examples.latents(0, examples.trajectory(0), 0)
    noised = pack.layout.noised
    t = pack.inputs.timesteps[noised][:, None]
    noise = pack.target[noised] + latents
    torch.testing.assert_close(pack.inputs.latents[noised], (1 - t) * latents + t * noise)
    torch.testing.assert_close(pack.inputs.latents[~noised], latents)
    assert pack.layout.velocity_rows.tolist() == noised.nonzero().flatten().tolist()
    many = torch.cat(
        [pack_of(examples, [0], step=step).target[noised] + latents for step in range(40)]
    )
    assert many.mean().abs() < 0.1
    assert many.std() == pytest.approx(1, abs=0.1)


def test_noise_differs_between_samples_steps_and_seeds(world: World) -> None:
    examples = trainer_of(world).examples
    twice = pack_of(examples, [0, 0])
    first, second = twice.target[twice.layout.noised].chunk(2)
    others = [first, second]
    others += [
        pack.target[pack.layout.noised]
        for pack in (pack_of(examples, [0], step=1), pack_of(examples, [0], seed=1))
    ]
    for index, one in enumerate(others):
        assert all(not torch.equal(one, other) for other in others[index + 1 :])


def test_stored_latents_and_patches_are_those_that_generation_makes(world: World) -> None:
    trainer = trainer_of(world)
    examples, codec = trainer.examples, trainer.codec
    for sample in range(len(examples)):
        trajectory = examples.trajectory(sample)
        for image, ref in enumerate(trajectory.images):
            stored = examples.latents(sample, trajectory, image)
            torch.testing.assert_close(stored, codec.to_latents(ref.array()), atol=1e-5, rtol=1e-5)
            patches = examples.patches(sample, trajectory, image)
            assert torch.equal(patches, codec.to_patches(ref.array()))


# --- who reads it and when -----------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_pack_is_the_same_whoever_builds_it_and_wherever_one_starts(
    world: World, workers: int
) -> None:
    expected = [trainer_of(world).packs.build(step) for step in range(8)]
    packs = trainer_of(world, num_workers=workers).packs
    for start in (0, 5):
        for pack, wanted in zip(packs.from_step(start), expected[start:], strict=True):
            assert_equal(pack, wanted)


def test_a_sample_that_became_unreadable_ends_the_run_with_its_name(
    world: World, tmp_path: Path
) -> None:
    data = write_data(tmp_path / "data", [one_shot(0), edit(0)])
    packs = Trainer(world.settings(tmp_path / "out", data=(Subset(path=data),))).packs
    [shard] = data.glob("*.tar")
    shard.unlink()
    with pytest.raises(ValueError, match=r"shard-000000.tar.*missing shard"):
        list(packs.from_step(0))


def test_data_are_read_once_for_all_runs_that_share_a_cache(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = world.settings(tmp_path / "one", cache=tmp_path / "cache")
    first = Trainer(settings).examples

    def unexpected(*_: Any) -> None:
        raise AssertionError("the images were encoded again")

    monkeypatch.setattr(ImageCodec, "to_latents_each", unexpected)
    second = Trainer(replace(settings, out=tmp_path / "two")).examples
    assert np.array_equal(first.lengths, second.lengths)
    assert torch.equal(
        first.latents(3, first.trajectory(3), 1), second.latents(3, second.trajectory(3), 1)
    )
    other = write_data(tmp_path / "other", [one_shot(5)])
    with pytest.raises(AssertionError, match="encoded again"):
        Trainer(replace(settings, out=tmp_path / "three", data=(Subset(path=other),)))


def test_subsets_follow_one_another_and_repeat_as_they_say(world: World, tmp_path: Path) -> None:
    other = write_data(tmp_path / "other", [edit(3), one_shot(4), edit(5)])
    data = (Subset(path=world.data), Subset(path=other, repeats=2.5))
    examples = Trainer(world.settings(tmp_path / "out", data=data)).examples
    assert len(examples) == 13
    assert examples.repeats.tolist() == [1.0] * 10 + [2.5] * 3
    assert examples.trajectory(11).task == "one_shot"
    assert examples.name(11) == f"{other}: s001"
    assert examples.name(9) == f"{world.data}: s009"
    assert examples.trajectory(0).prompt == one_shot(0).prompt


# --- several noised copies -----------------------------------------------------------------------


def test_copies_of_a_sketch_have_times_and_noise_of_their_own(world: World) -> None:
    examples = Trainer(world.settings(world.folder / "copies")).examples
    one, four = pack_of(examples, [0, 1]), pack_of(examples, [0, 1], copies=4)
    assert len(four.layout.velocity_rows) == 4 * len(one.layout.velocity_rows)
    assert len(four.layout.labels) == len(one.layout.labels)
    rows = four.layout.velocity_rows
    assert len(four.inputs.timesteps[rows].unique()) == 4 * len(
        one.inputs.timesteps[one.layout.velocity_rows].unique()
    )
    assert len(four.target[rows].unique(dim=0)) == len(rows)


def test_lengths_count_every_copy(world: World, tmp_path: Path) -> None:
    lengths = {
        copies: Trainer(
            world.settings(tmp_path / f"{copies}", noised_copies=copies, pack_tokens=999)
        ).examples
        for copies in (1, 3)
    }
    for sample in range(len(lengths[1])):
        trajectory = lengths[1].trajectory(sample)
        drawn = [step for step in trajectory.steps if isinstance(step, Sketch) and step.loss]
        noised = sum(2 + prod(lengths[1].grids_of(s.image).latent) for s in drawn)
        assert lengths[3].lengths[sample] - lengths[1].lengths[sample] == 2 * noised


def test_times_of_copies_are_spread_and_each_is_logit_normal() -> None:
    draws = torch.stack([SampleRandom(0, step, 0).timestep_logits(4) for step in range(2000)])
    quarters = (torch.special.ndtr(draws) * 4).long().sort(dim=1).values
    assert torch.equal(quarters, torch.arange(4).expand(2000, 4))
    for copy in range(4):  # whichever copy it is, over steps it is a standard normal
        assert draws[:, copy].mean().abs() < 0.08 and (draws[:, copy].std() - 1).abs() < 0.06


# --- the length of a pack ------------------------------------------------------------------------


def test_no_pack_is_longer_than_the_setting_says(world: World, tmp_path: Path) -> None:
    """What fills a pack up went beyond the limit: 976 tokens where 892 were allowed."""
    trainer = Trainer(world.settings(tmp_path, pack_tokens=300))
    packs = [trainer.packs[step] for step in range(12)]
    lengths = [pack.layout.num_tokens for pack in packs if isinstance(pack, Pack)]
    assert len(lengths) == 12 and max(lengths) <= 300


def test_a_sample_as_long_as_a_pack_stands_alone_without_filler(
    world: World, tmp_path: Path
) -> None:
    longest = int(Trainer(world.settings(tmp_path / "any")).examples.lengths.max())
    trainer = Trainer(world.settings(tmp_path / "tight", pack_tokens=longest))
    packs = [trainer.packs[step] for step in range(12)]
    made = [pack for pack in packs if isinstance(pack, Pack)]
    assert max(pack.layout.num_tokens for pack in made) == longest
    assert all(pack.tasks for pack in made), "a pack of nothing but filler"
