"""Samples that are drawn by Idea2Img: the miniature world's language model explores prompts.

Each batch is a job of `staged idea2img` in a folder of its own, so a kill costs what was being
drawn at that moment. Drafts are kept as the candidates of a search are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

from eval.miniature.candidates import keyed
from eval.miniature.settings import MiniatureSample, MiniatureSettings
from eval.search.best_of import Candidate, Found
from staged.backends.generators.generator import DrawnImage, DrawOutcome, NoImage
from staged.backends.idea2img.requests import PROMPT_VERSION
from staged.generate.settings import ModelSettings
from staged.idea2img.job import IdeaTask, run_ideas
from staged.idea2img.settings import Idea2ImgSettings
from staged.ideas.exploration import MAX_SCORE, Draft, Exploration
from staged.ideas.folder import load_exploration
from staged.ideas.idea import Idea
from staged.roles import Rating
from staged.shapes.players.misbehaviour import SHAPES_LMM
from staged.trajectory import Sketch, Stop, Trajectory

EXPLORER: Final = f"{SHAPES_LMM}, requests {PROMPT_VERSION}"
"""Who writes and chooses, as a record says it."""


def draw_explored(
    settings: MiniatureSettings,
    batch: Sequence[MiniatureSample],
    folder: Path,
    advance: Callable[[], None],
) -> Iterator[tuple[str, Trajectory]]:
    """Explore every sample, and give what was chosen and what was not with their keys.

    Args:
        settings: Who draws, and the policy of the exploration; precision settled.
        batch: What.
        folder: Of this batch's exploration.
        advance: Told of each sample that ends.
    """
    assert settings.explore is not None
    model = {field.name: getattr(settings, field.name) for field in fields(ModelSettings)}
    job = Idea2ImgSettings(
        model=ModelSettings(**model), policy=replace(settings.explore, control="none")
    )
    tasks = [
        IdeaTask(idea=Idea(parts=(one.prompt.text,)), manual="", seed=one.seed) for one in batch
    ]
    run_ideas(job, tasks, folder, done=lambda number, exploration: advance())
    for number, sample in enumerate(batch):
        exploration = load_exploration(folder / f"{number:05d}")
        if exploration.num_drafts:
            yield from keyed(sample.key, _found(exploration))
        else:
            yield sample.key, exploration.trajectory()


def _found(exploration: Exploration) -> Found:
    """Its drafts as candidates; whatever their scores, the chosen one stands above them."""
    candidates = []
    for place, draft in exploration.drafts():
        value = MAX_SCORE + 1 if place == exploration.best else draft.score
        rating = Rating(value=value, reason="" if value is not None else "not scored")
        outcome = _outcome(exploration, draft)
        candidates.append(Candidate(seed=draft.seed, outcome=outcome, rating=rating))
    return Found(candidates=tuple(candidates), verifier=EXPLORER)


def _outcome(exploration: Exploration, draft: Draft) -> DrawOutcome:
    provenance = {"mode": "idea2img", "asked": draft.prompt, "cost": dict(draft.cost)}
    trajectory = Trajectory(prompt=exploration.idea.text, provenance=provenance)
    if draft.image is None:
        trajectory = replace(trajectory, provenance=provenance | {"failure": draft.failure})
        return NoImage(reason=draft.failure, cost=draft.cost, trajectory=trajectory)
    steps = int(draft.cost.get("flow_steps", 0))
    sketch = Sketch(image=draft.image, seed=draft.seed, num_flow_steps=steps)
    trajectory = replace(trajectory, steps=(sketch, Stop()))
    return DrawnImage(pixels=draft.image.array(), cost=draft.cost, trajectory=trajectory)
