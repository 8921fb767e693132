"""The packs that a rank learns from in an iteration, in each step as many as on any rank."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path

from staged.loops.rollout import step_seed
from staged.model.codec import ImageCodec
from staged.model.tokenizer import BagelTokenizer
from train.examples import Examples
from train.packing import MAX_FILLER
from train.plan import PackPlan
from train.randomness import SampleRandom
from train.ranks import Ranks
from train.reinforce.packing import RewardedPack, build_rewarded_pack, without_weight
from train.reinforce.settings import ReinforceSettings
from train.settings import Subset
from train.stream import numbers


def iteration_packs(
    folder: Path,
    number: int,
    settings: ReinforceSettings,
    codec: ImageCodec,
    tokenizer: BagelTokenizer,
    ranks: Ranks,
    *,
    in_step: bool,
) -> Iterator[RewardedPack]:
    """Build this rank's packs of an iteration.

    Args:
        folder: Of its rollouts.
        number: Of the iteration.
        settings: Of the run.
        codec: Encodes their pictures.
        tokenizer: Encodes their texts.
        ranks: That share the packs.
        in_step: Whether a rank that a step has no pack for goes through it with the others.

    Raises:
        ValueError: The rollouts cannot be read, or no pack can hold one of them.
    """
    training = settings.training()

    def read_examples() -> Examples:
        return Examples(
            [Subset(path=str(folder))],
            codec,
            tokenizer,
            folder / "cache",
            noised_copies=settings.images.noised_copies,
        )

    examples = ranks.first_opens(read_examples)
    seed = step_seed(settings.seed, f"{number}/packs", 0)
    plan = PackPlan(
        examples.lengths,
        examples.repeats,
        pack_tokens=settings.pack_tokens,
        reserve=MAX_FILLER,
        seed=seed,
        name=examples.name,
    )
    # Before any is built: what no pack can hold is told on all ranks.
    planned = list(takewhile(lambda pack: pack[0][1] < settings.epochs, map(plan.pack, count())))
    num_steps = -(-len(planned) // settings.packs_per_step)
    for pack in numbers(range(num_steps), settings.packs_per_step, ranks.rank):
        there = 0 <= pack < len(planned)  # the last step may have fewer
        if not in_step and not there:
            return
        # An idle rank goes through the sharded layers with the others, with any pack.
        samples = [sample for sample, _ in planned[pack if there else 0]]
        randoms = [SampleRandom(seed, pack, place) for place in range(len(samples))]
        built = build_rewarded_pack(
            examples, samples, randoms, training, settings.credit.max_advantage
        )
        yield built if there else without_weight(built)
