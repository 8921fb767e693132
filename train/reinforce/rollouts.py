"""An iteration's rollouts: drawn by the policy as it stands, graded, and kept as shards.

What is drawn is a function of the weights, the settings and the seed: each rollout's seed comes
from (run, iteration, prompt, member), and none depends on which others are on their way. So
rollouts that were lost half written are drawn again to the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from staged.backends.bagel import BagelPlayer
from staged.backends.bagel_settings import BagelSettings
from staged.engine.engine import Engine
from staged.jobs.progress import Progress
from staged.loops.events import Event, Failed, Stopped
from staged.loops.roles import Roles
from staged.loops.rollout import step_seed
from staged.loops.staged import StagedLoop
from staged.model.flows import Flows, FlowSettings
from staged.shapes.sight.judged import judged
from staged.shards import ShardIndex, ShardWriter
from staged.shards.folder import INDEX
from staged.trajectory import Trajectory
from train.reinforce.advantages import CreditSettings, credit
from train.reinforce.grades import Grader, Grades
from train.reinforce.record import recorded
from train.reinforce.settings import RolloutSettings


@dataclass(frozen=True, kw_only=True)
class Start:
    """A rollout that is to be drawn.

    Attributes:
        prompt: What is asked.
        number: Of the prompt in the run's file; rollouts of one are a group.
        key: Under which it is kept.
        seed: Of all its steps.
    """

    prompt: str
    number: int
    key: str
    seed: int


def starts_of(
    prompts: Sequence[str], iteration: int, settings: RolloutSettings, seed: int
) -> list[Start]:
    """What an iteration draws: prompts in turn, each epoch of them in an order of its own.

    Args:
        prompts: Of the run.
        iteration: From 1.
        settings: How many.
        seed: Of the run.
    """
    starts = []
    for turn in range(settings.num_prompts):
        epoch, place = divmod((iteration - 1) * settings.num_prompts + turn, len(prompts))
        number = int(np.random.default_rng((seed, epoch)).permutation(len(prompts))[place])
        for member in range(settings.group_size):
            starts.append(
                Start(
                    prompt=prompts[number],
                    number=number,
                    key=f"{turn:05d}-{member:05d}",
                    seed=step_seed(seed, f"{iteration}/{turn}", member),
                )
            )
    return starts


def flows_of(flows: Flows, settings: RolloutSettings) -> Flows:
    """How pictures are drawn: as the checkpoint says, with what the settings change."""

    def changed(flow: FlowSettings) -> FlowSettings:
        guidance = flow.guidance
        if settings.guidance_scale is not None:
            guidance = replace(guidance, text_scale=settings.guidance_scale)
        if settings.image_guidance_scale is not None:
            guidance = replace(guidance, image_scale=settings.image_guidance_scale)
        steps = settings.num_flow_steps or flow.num_flow_steps
        return flow.otherwise(num_flow_steps=steps, guidance=guidance)

    return flows.each(changed)


def draw(
    engine: Engine, settings: RolloutSettings, starts: Sequence[Start], name: str, label: str | None
) -> list[Trajectory]:
    """Take rollouts to their end.

    Args:
        engine: Holds the weights that draw; nothing that it read before is used.
        settings: How to draw.
        starts: What.
        name: Of the model, for provenance.
        label: What the line on the terminal calls them; None shows none.
    """
    playing = BagelSettings(
        flows=flows_of(engine.flows, settings),
        max_text_tokens=settings.max_text_tokens,
        temperature=settings.temperature,
        # Nothing is cut off: what is never written could not be learned.
        top_p=1.0,
        choice_temperature=settings.choice_temperature,
    )
    roles = Roles.of(BagelPlayer(engine, playing), name)
    loop = StagedLoop(roles, settings.policy(), batch_size=settings.batch_size)
    progress = None if label is None else Progress(label, len(starts), unit="rollouts/s")

    def advance(event: Event) -> None:
        if progress is not None and isinstance(event, Stopped | Failed):
            progress.advance()

    ended = loop.run([one.prompt for one in starts], [one.seed for one in starts], advance)
    if progress is not None:
        progress.close()
    return ended


def write(
    folder: Path,
    starts: Sequence[Start],
    trajectories: Sequence[Trajectory],
    grader: Grader,
    settings: CreditSettings,
) -> list[Grades]:
    """Grade rollouts, compare them, and keep them; the folder's index comes last.

    Those of the miniature world are judged too, so that pages of them say what is right.

    Returns:
        The grades of each.
    """
    grades = grader.grade(trajectories)
    credits = credit(trajectories, grades, [start.number for start in starts], settings)
    with ShardWriter(folder, title=f"rollouts of iteration {folder.name}") as writer:
        for start, trajectory, graded, worth in zip(
            starts, trajectories, grades, credits, strict=True
        ):
            writer.write(
                start.key,
                recorded(
                    judged(trajectory),
                    grader=grader.name,
                    prompt=start.number,
                    grades=graded,
                    credits=worth,
                ),
            )
    return grades


def is_written(folder: Path) -> bool:
    """Whether all rollouts of an iteration are there."""
    return (folder / INDEX).is_file()


def read(folder: Path) -> list[Trajectory]:
    """Read what `write` left, in order."""
    index = ShardIndex(folder)
    return [index[place].trajectory for place in range(len(index))]
