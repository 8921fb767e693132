"""Pictures line by line, for evaluations: of prompts as they are, and of what models make of them.

    original.jsonl   {"image": PATH, "prompt": as it was asked, "drawn": as it was drawn}
    sft.jsonl        the same prompts, rewritten by the first stage
    dpo1.jsonl …     and by each iteration

A picture that could not be drawn has a path without a file: unscored is not zero. Paths are
relative to the file, which `staged eval rewards` reads.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from staged.backends.idea2img.painter import IdeaImageModel, LedgerPainter
from staged.jobs.files import read_json, write_json_lines, write_whole
from staged.jobs.ledger import Ledger, unit_key
from staged.jobs.runner import in_turn
from staged.loops.idea2img.roles import DraftRequest
from staged.loops.rollout import step_seed
from staged.roles import RoleError
from train.self_reward.asking import Questions
from train.self_reward.job import JUDGED
from train.self_reward.judging import JudgedPrompt
from train.self_reward.rewards import best_of
from train.self_reward.rewriting import LikeliestWriter, kept_rewrites
from train.self_reward.rollout import picture_at
from train.self_reward.settings import SelfRewardSettings

ORIGINAL: Final = "original"
_AT_ONCE: Final = 4
"""Pictures that are drawn side by side."""


def line_of(iteration: int, settings: SelfRewardSettings) -> str:
    """Name the line of a run's model: 0 is the first stage's."""
    if iteration:
        return f"dpo{iteration}"
    return "sft" if settings.sft_data else "untrained"


def draw_lines(
    settings: SelfRewardSettings,
    sources: Mapping[str, str],
    prompts: Sequence[str],
    folder: Path,
    *,
    images_per_prompt: int,
    max_new_tokens: int,
    wording: Questions,
    model: IdeaImageModel,
    open_writer: Callable[[str], LikeliestWriter],
    tell: Callable[[str, int], Callable[[], None]] = lambda line, number: lambda: None,
) -> dict[str, dict[str, int]]:
    """Draw prompts as they are and as each model rewrites them, all with the same noise.

    What the folder holds is taken; lines may be added.

    Args:
        settings: Of the run: seed, beams, image model.
        sources: Line to the model that rewrites, in order.
        prompts: Different ones.
        folder: Gets the lines, `pictures/` and `ledger/`.
        images_per_prompt: Of each, with different noise.
        max_new_tokens: Of a rewrite, at most.
        wording: How models are asked.
        model: Draws.
        open_writer: Opens a model by its folder.
        tell: Asked, with a line and its number of pictures, whom to tell of each picture.

    Returns:
        Of each line: pictures, prompts that were changed, and prompts without a rewrite.

    Raises:
        ValueError: The folder holds pictures of other prompts or of another image model.
        BudgetError: The run's budget is spent.
    """
    images = settings.deciding("rollout")["images"]
    fingerprint = unit_key(list(prompts), images_per_prompt, settings.seed, images)
    found = {}
    endpoint = settings.image_model.endpoint
    with Ledger(folder / "ledger", fingerprint=fingerprint, budget=settings.budget) as ledger:
        usd = endpoint.usd_per_image if endpoint else 0.0
        painter = LedgerPainter(model, ledger, usd_per_image=usd)
        for line in (ORIGINAL, *sources):
            texts: Sequence[str | None] = prompts
            if line != ORIGINAL:
                texts = kept_rewrites(
                    ledger,
                    open_writer(sources[line]),
                    wording,
                    prompts,
                    num_beams=settings.num_beams,
                    max_new_tokens=max_new_tokens,
                )
            done = tell(line, len(prompts) * images_per_prompt)
            drawing = _Line(painter, folder, line, settings.seed, images_per_prompt, done)
            records = asyncio.run(drawing.draw(prompts, texts))
            write_json_lines(folder / f"{line}.jsonl", records)
            found[line] = {
                "pictures": sum((folder / record["image"]).is_file() for record in records),
                "rewritten": sum(t not in (None, p) for p, t in zip(prompts, texts, strict=True)),
                "without a rewrite": sum(text is None for text in texts),
            }
    return found


class _Line:
    """Draws one line."""

    def __init__(
        self,
        painter: LedgerPainter,
        folder: Path,
        line: str,
        seed: int,
        images_per_prompt: int,
        done: Callable[[], None],
    ) -> None:
        self._painter, self._folder, self._line = painter, folder, line
        self._seed, self._each, self._done = seed, images_per_prompt, done

    async def draw(
        self, prompts: Sequence[str], texts: Sequence[str | None]
    ) -> list[dict[str, Any]]:
        records: dict[tuple[int, int], dict[str, Any]] = {}

        async def one(place: tuple[int, int]) -> None:
            number, image = place
            name = f"pictures/{self._line}/{number:05d}-{image:03d}.png"
            prompt, text = prompts[number], texts[number]
            # One of an earlier model is not this one's, where this one's cannot be drawn.
            (self._folder / name).unlink(missing_ok=True)
            if text is not None:
                await self._picture(self._folder / name, text, step_seed(self._seed, prompt, image))
            records[place] = {"image": name, "prompt": prompt, "drawn": text}
            self._done()

        places = [(n, i) for n in range(len(prompts)) for i in range(self._each)]
        await in_turn(places, one, workers=_AT_ONCE)
        return [records[place] for place in places]

    async def _picture(self, path: Path, text: str, seed: int) -> None:
        [drawn] = await self._painter.draw([DraftRequest(prompt=text, seed=seed)])
        if not isinstance(drawn, RoleError):
            write_whole(path, drawn.image.loaded)


def chosen_lines(
    settings: SelfRewardSettings, source: Path, among: Sequence[int], folder: Path
) -> dict[str, dict[str, int]]:
    """Write which picture an iteration's judge would choose among the first so many rewrites.

    Where no rewrite passes the gate the original stays.

    Args:
        settings: Of the run.
        source: Folder of the iteration whose rollouts and judgements they are.
        among: Numbers of rewrites; a prompt with fewer different ones has fewer to choose from.
        folder: Gets `original.jsonl` and `best_of_N.jsonl`.

    Returns:
        Of each line: pictures, and those that are not the original's.

    Raises:
        ValueError: The iteration was not judged.
    """
    path = source / JUDGED
    if not path.is_file():
        raise ValueError(f"there is no {path}; `staged self-reward judge` writes it")
    judged = [JudgedPrompt.of(one, str(path)) for one in read_json(path)]
    found = {}
    for line, most in {ORIGINAL: 0, **{f"best_of_{number}": number for number in among}}.items():
        records, changed = [], 0
        for one in judged:
            place = best_of(one.rewards[:most], settings.alignment_tolerance)
            taken = one.rollout if place is None else one.rollout.candidates[place]
            changed += place is not None
            picture = picture_at(source / "pictures", taken.picture).resolve()
            name = os.path.relpath(picture, folder.resolve())
            records.append({"image": name, "prompt": one.rollout.prompt, "drawn": taken.prompt})
        write_json_lines(folder / f"{line}.jsonl", records)
        found[line] = {"pictures": len(records), "rewritten": changed}
    return found
