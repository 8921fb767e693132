"""Judging the pictures of rollouts, and the judgements: both by the model that is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from staged import images
from staged.jobs.budget import BudgetError
from staged.jobs.ledger import Ledger
from staged.jobs.results import UnitResult
from staged.loops.rollout import step_seed
from train.self_reward.asking import Questions, read_assessment, read_judgement
from train.self_reward.rewards import (
    PromptChoice,
    Reward,
    ScoredPair,
    choose,
    choose_answers,
    reward_of,
)
from train.self_reward.rollout import DrawnPrompt, kept_answers, picture_at
from train.self_reward.settings import JudgeSettings, Rubric, SelfRewardSettings
from train.self_reward.vlm import Asked, VlmPlayer


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """The answers to one question about two pictures.

    Attributes:
        candidate: Its number.
        rubric: What was asked about.
        swapped: Whether the candidate's picture came first.
        texts: The answers; None for one that was cut off.
        assessments: What the model says of each in its turn; empty where it was not asked.
    """

    candidate: int
    rubric: Rubric
    swapped: bool
    texts: tuple[str | None, ...]
    assessments: tuple[float | None, ...] = ()


@dataclass(frozen=True, kw_only=True)
class JudgedPrompt:
    """A rollout that was judged.

    Attributes:
        rollout: What was judged.
        verdicts: All that was said.
    """

    rollout: DrawnPrompt
    verdicts: tuple[Verdicts, ...]

    @property
    def rewards(self) -> list[Reward]:
        """Of each candidate."""
        found: list[dict[Rubric, list[ScoredPair]]] = [{} for _ in self.rollout.candidates]
        for one in self.verdicts:
            scored = found[one.candidate].setdefault(one.rubric, [])
            scored += [pair for text in one.texts if (pair := read_pair(text, one.swapped))]
        return [reward_of(answers) for answers in found]

    @property
    def num_invalid(self) -> int:
        """Answers that were no answers."""
        return sum(
            read_pair(text, one.swapped) is None for one in self.verdicts for text in one.texts
        )

    def choice(
        self, alignment_tolerance: float | None, dropped: Counter[str] | None = None
    ) -> PromptChoice | None:
        """The pair that it gives; None for a reason that `dropped` is told."""
        prompts = [candidate.prompt for candidate in self.rollout.candidates]
        return choose(
            prompts, self.rewards, alignment_tolerance=alignment_tolerance, dropped=dropped
        )

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "prompt": self.rollout.prompt,
            "picture": self.rollout.picture,
            "candidates": [vars(one) for one in self.rollout.candidates],
            "verdicts": [
                {**vars(one), "texts": list(one.texts), "assessments": list(one.assessments)}
                for one in self.verdicts
            ],
        }

    @classmethod
    def of(cls, data: dict[str, Any], place: str) -> JudgedPrompt:
        """Read what `plain` gave."""
        sample = {name: data[name] for name in ("prompt", "picture", "candidates")}
        verdicts = tuple(
            Verdicts(
                candidate=one["candidate"],
                rubric=one["rubric"],
                swapped=one["swapped"],
                texts=tuple(one["texts"]),
                assessments=tuple(one["assessments"]),
            )
            for one in data["verdicts"]
        )
        return cls(rollout=DrawnPrompt.of(sample, place), verdicts=verdicts)


def read_pair(text: str | None, swapped: bool) -> ScoredPair | None:
    """Read a judgement as scores of original and candidate; None for no valid one."""
    found = None if text is None else read_judgement(text)
    if found is None:
        return None
    first, second = found.scores
    return ScoredPair(original=second, candidate=first) if swapped else ScoredPair(
        original=first, candidate=second
    )  # fmt: skip


def questions(
    judge: JudgeSettings, wording: Questions, prompt: str, shown: tuple[bytes, bytes]
) -> Iterator[tuple[Rubric, bool, Asked]]:
    """Yield what is asked about two pictures for a prompt: rubric, whether they are swapped, how.

    Args:
        judge: Rubrics, and whether both orders are asked.
        wording: Of the questions.
        prompt: What both were drawn for.
        shown: Both, encoded.
    """
    for rubric in judge.rubrics:
        for swapped in (False, True)[: 1 + judge.both_orders]:
            pictures = shown[::-1] if swapped else shown
            yield rubric, swapped, Asked(question=wording.judge(rubric, prompt), pictures=pictures)


async def kept_verdicts(
    ledger: Ledger, answerer: VlmPlayer, asked: Asked, number: int, settings: SelfRewardSettings
) -> list[str | None]:
    """Ask a judge so many times, or take what it said before."""
    seed = step_seed(settings.seed, asked.question, 2)
    sampling = settings.judge.sampling
    return await kept_answers(ledger, answerer, asked, number, sampling, seed=seed)


@dataclass(kw_only=True)
class JudgingWork:
    """Judges rollouts.

    Attributes:
        settings: Rubrics, samples, orders.
        answerer: Judges.
        ledger: Keeps every answer.
        wording: How it is asked.
        pictures: Folder of the pictures.
        done: Told of each rollout as it ends.
    """

    settings: SelfRewardSettings
    answerer: VlmPlayer
    ledger: Ledger
    wording: Questions
    pictures: Path
    done: Callable[[], None] = field(default=lambda: None)

    async def run(self, units: Sequence[int], rollouts: Sequence[DrawnPrompt]) -> str:
        """Work on units; returns the limit that stopped the job, if one did."""
        assessed = self._assessed(rollouts)
        for unit in units:
            try:
                judged = await self._one(rollouts[unit], unit, assessed)
            except BudgetError as stop:
                return str(stop)
            result = UnitResult(status="accepted", sample=judged.plain())
            await self.ledger.finish(unit, result)
            self.done()
        return ""

    def _assessed(self, rollouts: Sequence[DrawnPrompt]) -> frozenset[tuple[int, int]]:
        """DrawnPrompt and candidate of those whose judgements are assessed: the first so many."""
        judge = self.settings.judge
        each = len(judge.assessed_rubrics) * (2 if judge.both_orders else 1)
        places = [(r, c) for r, one in enumerate(rollouts) for c in range(len(one.candidates))]
        most = len(places) if judge.max_assessed is None else judge.max_assessed // max(each, 1)
        return frozenset(places[:most] if each else ())

    async def _one(
        self, rollout: DrawnPrompt, unit: int, assessed: frozenset[tuple[int, int]]
    ) -> JudgedPrompt:
        judge = self.settings.judge
        original = self._picture(rollout.picture)
        verdicts = []
        for number, candidate in enumerate(rollout.candidates):
            shown = original, self._picture(candidate.picture)
            for rubric, swapped, asked in questions(judge, self.wording, rollout.prompt, shown):
                texts = await self._answers(asked, judge.num_samples)
                said: tuple[float | None, ...] = ()
                if rubric in judge.assessed_rubrics and (unit, number) in assessed:
                    said = tuple([await self._assessment(asked, text) for text in texts])
                verdicts.append(
                    Verdicts(
                        candidate=number,
                        rubric=rubric,
                        swapped=swapped,
                        texts=tuple(texts),
                        assessments=said,
                    )
                )
        return JudgedPrompt(rollout=rollout, verdicts=tuple(verdicts))

    async def _assessment(self, about: Asked, answer: str | None) -> float | None:
        """What the model says of an answer of its own; an answer in no valid form is not asked."""
        if answer is None or read_judgement(answer) is None:
            return None
        question = self.wording.assess(about.question, answer)
        asked = Asked(question=question, pictures=about.pictures)
        texts = await self._answers(asked, self.settings.judge.num_samples)
        found = [score for text in texts if text and (score := read_assessment(text)) is not None]
        return sum(found) / len(found) if found else None

    async def _answers(self, asked: Asked, number: int) -> list[str | None]:
        return await kept_verdicts(self.ledger, self.answerer, asked, number, self.settings)

    def _picture(self, digest: str) -> bytes:
        return images.read_file(picture_at(self.pictures, digest))


def judge_pairs(judged: JudgedPrompt) -> list[tuple[Verdicts, PromptChoice]]:
    """Questions whose answers were assessed differently, and which answers those are."""
    found = ((one, choose_answers(one.assessments)) for one in judged.verdicts if one.assessments)
    return [(one, choice) for one, choice in found if choice is not None]
