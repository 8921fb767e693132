"""The stages, one after another, in a folder.

    settings.yaml          what decides all of it
    sft/                   the model of the first stage
    1/rollout/, judge/     ledgers of the first iteration: every answer and picture
    1/rollouts.json        rewrites and pictures
    1/pictures/            the pictures
    1/judged.json          what was said of them
    1/pairs.jsonl          preferences, as TRL reads them; pairs.swift.jsonl for ms-swift
    1/model/               the model after it
    2/ …                   the same, by the model of 1

A stage that is whole is not done again; one that was killed goes on from what is kept.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from staged.devices import settle
from staged.generate.requests import read_prompts
from staged.idea2img.image_models import check_image_model, open_image_model, settled
from staged.jobs.files import read_json, write_json
from staged.jobs.ledger import Ledger, unit_key
from staged.jobs.rank import Rank
from staged.settings import changes, load, save_resolved, to_dict
from train.self_reward.asking import WORDINGS, Questions
from train.self_reward.examples import Example, read_examples, write_examples, write_swift
from train.self_reward.judging import JudgedPrompt, JudgingWork, judge_pairs
from train.self_reward.rollout import DrawnPrompt, RolloutWork, picture_at, write_pictures
from train.self_reward.settings import SelfRewardSettings
from train.self_reward.tuning import tune
from train.self_reward.vlm import LocalVlm, VlmPlayer, digest_of

SETTINGS: Final = "settings.yaml"
ROLLOUTS, JUDGED, PAIRS, SWIFT = "rollouts.json", "judged.json", "pairs.jsonl", "pairs.swift.jsonl"
_ALONE: Final = Rank()
OpenPlayer = Callable[[str], VlmPlayer]


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """How a stage ended.

    Attributes:
        stage: Its name, with the iteration.
        counts: What it made, and what it left out, by reason.
        unfinished: Units that are left, for other processes or a larger budget.
        stopped: The limit that stopped it, if one did.
    """

    stage: str
    counts: dict[str, int] = field(default_factory=dict)
    unfinished: int = 0
    stopped: str = ""


class SelfRewardJob:
    """A folder and what is done in it.

    Args:
        settings: Of all stages.
        rank: Which of the processes that share the work this is.
        tell: Told of progress: stage, units done, units in all.
        open_answerer: Opens a model by its folder; `LocalVlm` unless another plays its part.

    Raises:
        ValueError: The folder holds other settings, or the settings cannot be followed.
    """

    def __init__(
        self,
        settings: SelfRewardSettings,
        *,
        rank: Rank = _ALONE,
        tell: Callable[[str, int, int], None] = lambda stage, done, of: None,
        open_answerer: OpenPlayer | None = None,
    ) -> None:
        """Look at the folder."""
        path = settings.out / SETTINGS
        begun = load(SelfRewardSettings, path) if path.is_file() else None
        images = settled(settings.image_model, begun.image_model if begun else None)
        vlm = settle(settings.vlm, begun=begun.vlm.dtype if begun else None)
        self.settings = settings = replace(settings, images=images, vlm=vlm)
        if begun is not None and (other := changes(_lasting(begun), _lasting(settings))):
            raise ValueError(
                f"{settings.out} holds work of other settings: {'; '.join(other)}. Choose another "
                f"folder, or go on with the settings in {path}"
            )
        check_image_model(images)
        self.wording: Questions = WORDINGS[settings.vlm.wording]
        self._rank, self._tell = rank, tell
        self._open = open_answerer or (lambda source: LocalVlm(source, settings.vlm))
        self._answerers: dict[str, VlmPlayer] = {}
        if rank.number == 0:
            save_resolved(settings, path)

    @property
    def shared(self) -> bool:
        """Whether other processes work on it too."""
        return self._rank.world_size > 1

    @property
    def num_iterations(self) -> int:
        """How often it learns from its own judgement."""
        return len(self.settings.num_prompts)

    def folder(self, iteration: int) -> Path:
        """Of an iteration, from 1."""
        if not 1 <= iteration <= self.num_iterations:
            raise ValueError(
                f"iteration {iteration}: num_prompts says there are {self.num_iterations}"
            )
        return self.settings.out / str(iteration)

    def model_after(self, iteration: int) -> str:
        """The model that an iteration leaves; 0 is the first stage.

        Raises:
            ValueError: It is not trained yet.
        """
        if iteration == 0:
            if not self.settings.sft_data:
                return self.settings.vlm.model
            folder, stage = self.settings.out / "sft", "sft"
        else:
            folder, stage = self.folder(iteration) / "model", f"dpo --iteration {iteration}"
        if not _has_model(folder):
            raise ValueError(f"{folder} holds no model yet; run `staged self-reward {stage}` first")
        return str(folder)

    def sft(self) -> StageResult:
        """Train the first stage, unless it is there."""
        settings, folder = self.settings, self.settings.out / "sft"
        if not settings.sft_data:
            raise ValueError("sft_data names no examples; there is no first stage to train")
        examples = [one for path in settings.sft_data for one in read_examples(path)]
        if not _has_model(folder):
            tune(
                settings.vlm.model, examples, folder, settings.sft, settings.vlm, seed=settings.seed
            )
        return StageResult(stage="sft", counts={"examples": len(examples)})

    def rollout(self, iteration: int) -> StageResult:
        """Write rewrites of an iteration's prompts, and draw them."""
        folder, stage = self.folder(iteration), f"rollout {iteration}"
        prompts, source = self._prompts(iteration), self.model_after(iteration - 1)
        went_in = unit_key(digest_of(source), prompts)
        with self._ledger(iteration, "rollout", went_in) as ledger:
            units = self._rank.share(range(len(prompts)))
            left = sorted(ledger.left(units))
            stopped = ""
            if left:
                work = RolloutWork(
                    self.settings,
                    self._answerer(source),
                    open_image_model(self.settings.image_model),
                    ledger,
                    self.wording,
                    self._counter(stage, len(units) - len(left), len(units)),
                )
                stopped = asyncio.run(work.run(left, prompts))
            unfinished = len(ledger.left(range(len(prompts))))
            found, counts = _rollouts(ledger)
            if not unfinished:
                write_pictures(ledger, found, folder / "pictures")
                write_json(folder / ROLLOUTS, [_plain(one) for one in found])
        return StageResult(stage=stage, counts=counts, unfinished=unfinished, stopped=stopped)

    def judge(self, iteration: int) -> StageResult:
        """Let the model judge what an iteration drew."""
        folder, stage = self.folder(iteration), f"judge {iteration}"
        rollouts = self._rollouts(iteration)
        source = self.model_after(iteration - 1)
        went_in = unit_key(digest_of(source), read_json(folder / ROLLOUTS))
        with self._ledger(iteration, "judge", went_in) as ledger:
            units = self._rank.share(range(len(rollouts)))
            left = sorted(ledger.left(units))
            stopped = ""
            if left:
                work = JudgingWork(
                    settings=self.settings,
                    answerer=self._answerer(source),
                    ledger=ledger,
                    wording=self.wording,
                    pictures=folder / "pictures",
                    done=self._counter(stage, len(units) - len(left), len(units)),
                )
                stopped = asyncio.run(work.run(left, rollouts))
            unfinished = len(ledger.left(range(len(rollouts))))
            samples = [result.sample for _, result in ledger.results() if result.sample is not None]
            if not unfinished:
                write_json(folder / JUDGED, samples)
        judged = [JudgedPrompt.of(one, stage) for one in samples]
        counts = {
            "judged": len(judged),
            "answers": sum(len(v.texts) for one in judged for v in one.verdicts),
            "invalid answers": sum(one.num_invalid for one in judged),
        }
        return StageResult(stage=stage, counts=counts, unfinished=unfinished, stopped=stopped)

    def pairs(self, iteration: int) -> StageResult:
        """Make preferences of what an iteration's judge said."""
        folder = self.folder(iteration)
        path = folder / JUDGED
        if not path.is_file():
            raise ValueError(
                f"there is no {path}; run `staged self-reward judge --iteration {iteration}` first"
            )
        judged = [JudgedPrompt.of(one, str(path)) for one in read_json(path)]
        dropped: Counter[str] = Counter()
        examples = list(self._preferences(judged, folder / "pictures", dropped))
        prompts = sum(not one.images for one in examples)
        write_examples(folder / PAIRS, examples)
        write_swift(folder / SWIFT, examples)
        counts = {"prompt pairs": prompts, "judge pairs": len(examples) - prompts}
        counts |= {f"dropped: {why}": number for why, number in sorted(dropped.items())}
        return StageResult(stage=f"pairs {iteration}", counts=counts)

    def dpo(self, iteration: int) -> StageResult:
        """Train an iteration on its preferences, unless its model is there."""
        settings, folder = self.settings, self.folder(iteration)
        path = folder / PAIRS
        if not path.is_file():
            raise ValueError(
                f"there is no {path}; run `staged self-reward pairs --iteration {iteration}` first"
            )
        if not path.stat().st_size:
            raise ValueError(
                f"{path} is empty: no two rewrites of a prompt were worth different scores, or "
                "none was aligned; `staged self-reward pairs` says how many were dropped, and why"
            )
        examples = read_examples(path)
        if not _has_model(folder / "model"):
            tune(
                self.model_after(iteration - 1),
                examples,
                folder / "model",
                settings.dpo,
                settings.vlm,
                seed=settings.seed + iteration,
                learning_rate=settings.dpo.rate(iteration),
            )
        return StageResult(stage=f"dpo {iteration}", counts={"pairs": len(examples)})

    def _preferences(
        self, judged: Sequence[JudgedPrompt], pictures: Path, dropped: Counter[str]
    ) -> list[Example]:
        found = []
        for one in judged:
            choice = one.choice(self.settings.alignment_tolerance, dropped)
            candidates = one.rollout.candidates
            if choice is not None:
                found.append(
                    Example(
                        question=self.wording.rewrite(one.rollout.prompt),
                        answer=candidates[choice.chosen].prompt,
                        rejected=candidates[choice.rejected].prompt,
                    )
                )
            for verdicts, better in judge_pairs(one):
                shown = (one.rollout.picture, candidates[verdicts.candidate].picture)
                answer, worse = verdicts.texts[better.chosen], verdicts.texts[better.rejected]
                assert answer is not None and worse is not None, "what is assessed was answered"
                found.append(
                    Example(
                        question=self.wording.judge(verdicts.rubric, one.rollout.prompt),
                        answer=answer,
                        rejected=worse,
                        images=tuple(
                            picture_at(pictures, digest)
                            for digest in (reversed(shown) if verdicts.swapped else shown)
                        ),
                    )
                )
        return found

    def _prompts(self, iteration: int) -> list[str]:
        """The prompts of an iteration: those behind the ones of the iterations before."""
        self.folder(iteration)
        every = list(dict.fromkeys(read_prompts(self.settings.prompts)))
        ends = [0, *accumulate(self.settings.num_prompts)]
        mine = every[ends[iteration - 1] : ends[iteration]]
        if not mine:
            raise ValueError(
                f"{self.settings.prompts} has {len(every)} different prompts, and the iterations "
                f"before {iteration} take them all; add some, or lower num_prompts"
            )
        return mine

    def _rollouts(self, iteration: int) -> list[DrawnPrompt]:
        path = self.folder(iteration) / ROLLOUTS
        if not path.is_file():
            raise ValueError(
                f"there is no {path}; run `staged self-reward rollout --iteration {iteration}` "
                "first, with every process"
            )
        return [DrawnPrompt.of(one, str(path)) for one in read_json(path)]

    def _ledger(self, iteration: int, stage: str, went_in: str) -> Ledger:
        return Ledger(
            self.folder(iteration) / stage,
            fingerprint=unit_key(self.settings.deciding(stage), went_in),
            rank=self._rank,
            budget=self.settings.budget,
        )

    def _answerer(self, source: str) -> VlmPlayer:
        """Open a model once."""
        if source not in self._answerers:
            self._answerers = {source: self._open(source)}  # two would take twice the memory
        return self._answerers[source]

    def _counter(self, stage: str, done: int, number: int) -> Callable[[], None]:
        count = iter(range(done + 1, number + 1))
        return lambda: self._tell(stage, next(count), number)


def _rollouts(ledger: Ledger) -> tuple[list[DrawnPrompt], dict[str, int]]:
    found, reasons = [], Counter[str]()
    for unit, result in ledger.results():
        if result.sample is not None:
            found.append(DrawnPrompt.of(result.sample, f"{ledger.folder}, prompt {unit}"))
        else:
            reasons[f"dropped: {result.reason}"] += 1
    counts = {"prompts": len(found), "candidates": sum(len(one.candidates) for one in found)}
    return found, {**counts, **reasons}


def _plain(rollout: DrawnPrompt) -> dict[str, Any]:
    return {**vars(rollout), "candidates": [vars(one) for one in rollout.candidates]}


def _has_model(folder: Path) -> bool:
    """Whether training came to its end: what is logged is written last."""
    return (folder / "training.json").is_file()


def _lasting(settings: SelfRewardSettings) -> dict[str, Any]:
    """Settings that may not change while a folder is worked in."""
    data = to_dict(settings)
    for name in ("out", "budget", "num_beams"):
        del data[name]
    data["vlm"].pop("device")
    for name in ("sft", "dpo"):
        for free in ("micro_batch_size", "gradient_checkpointing", "save_every_steps"):
            data[name].pop(free)
    # More iterations may be added at the end.
    data.pop("num_prompts")
    return data


def models_of(folder: Path, settings: SelfRewardSettings) -> dict[int, str]:
    """The models that a run has left: 0 is the first stage's, which may be the one it began with.

    Args:
        folder: Of the run.
        settings: Its own.
    """
    found = {} if settings.sft_data else {0: settings.vlm.model}
    for number in range(len(settings.num_prompts) + 1):
        path = folder / "sft" if number == 0 else folder / str(number) / "model"
        if _has_model(path):
            found[number] = str(path)
    return found


def newest_model(folder: Path, settings: SelfRewardSettings, iteration: int | None = None) -> str:
    """The model that a run's last finished iteration left, or that of a given one.

    Args:
        folder: Of the run.
        settings: Its own.
        iteration: From 1; 0 is the first stage's; None the last that is there.

    Raises:
        ValueError: There is none.
    """
    there = models_of(folder, settings)
    number = max(there, default=-1) if iteration is None else iteration
    if number not in there:
        which = "" if iteration is None else f" of iteration {iteration}"
        raise ValueError(f"{folder} holds no model{which}; `staged self-reward run` trains them")
    return there[number]
