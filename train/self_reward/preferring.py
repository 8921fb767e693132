"""Which of two pictures a model prefers: what `staged eval judge-accuracy` holds against people."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from staged import images
from staged.jobs.files import write_json_lines
from staged.jobs.ledger import Ledger, unit_key
from staged.settings import to_dict
from train.self_reward.asking import Questions
from train.self_reward.judging import kept_verdicts, questions, read_pair
from train.self_reward.preferences import PicturePair, plain
from train.self_reward.rewards import ScoredPair
from train.self_reward.settings import Rubric, SelfRewardSettings
from train.self_reward.vlm import VlmPlayer

PREFERRED: Final = "preferred.jsonl"


def prefer(
    settings: SelfRewardSettings,
    answerer: VlmPlayer,
    pairs: Sequence[PicturePair],
    folder: Path,
    *,
    wording: Questions,
    done: Callable[[], None] = lambda: None,
) -> int:
    """Let a model judge pairs as it judges rollouts, and write what it said.

    Args:
        settings: Rubrics, samples and orders of its run.
        answerer: The model.
        pairs: What it judges.
        folder: Gets `ledger/` and `preferred.jsonl`: the pairs, each with `scores`, the mean score
            of either picture under each rubric; one without any valid answer is left out.
        wording: How it is asked.
        done: Told of each pair.

    Returns:
        Pairs that have scores under every rubric.

    Raises:
        ValueError: The folder holds what another model said, or a picture cannot be read.
        BudgetError: The run's budget is spent.
    """
    fingerprint = unit_key(answerer.digest, to_dict(settings.judge), settings.seed)
    with Ledger(folder / "ledger", fingerprint=fingerprint, budget=settings.budget) as ledger:

        async def every() -> list[dict[Rubric, list[float]]]:
            judged = []
            for pair in pairs:  # a model on one device answers one question after the other
                judged.append(await _scores(settings, answerer, pair, ledger, wording))
                done()
            return judged

        scored = asyncio.run(every())
    records: list[dict[str, Any]] = [
        {**plain(pair, folder), "scores": scores}
        for pair, scores in zip(pairs, scored, strict=True)
    ]
    write_json_lines(folder / PREFERRED, records)
    return sum(len(scores) == len(settings.judge.rubrics) for scores in scored)


async def _scores(
    settings: SelfRewardSettings,
    answerer: VlmPlayer,
    pair: PicturePair,
    ledger: Ledger,
    wording: Questions,
) -> dict[Rubric, list[float]]:
    judge = settings.judge
    first, second = (images.read_file(path) for path in pair.images)
    said: dict[Rubric, list[ScoredPair]] = {}
    for rubric, swapped, asked in questions(judge, wording, pair.prompt, (first, second)):
        texts = await kept_verdicts(ledger, answerer, asked, judge.num_samples, settings)
        found = said.setdefault(rubric, [])
        found += [one for text in texts if (one := read_pair(text, swapped))]
    return {
        rubric: [fmean(one.original for one in found), fmean(one.candidate for one in found)]
        for rubric, found in said.items()
        if found
    }
