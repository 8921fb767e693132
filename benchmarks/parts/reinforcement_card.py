"""The card of a shipped reinforcement: what it draws and learns, what that takes, what is known."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from staged.engine.memory import Footprint
from staged.generate.lengths import Lengths
from staged.model.codec import ImageSizes
from staged.model.config import BagelConfig
from train.forecast import Forecast, forecast
from train.gpus import GPUS
from train.reinforce.settings import ReinforceSettings

_GIB = 2**30
_MAX_BRANCHES = 3


def needs(text: str) -> str:
    """The commands that a settings file's comment names as what comes before it, a line each."""
    return "\n".join(re.findall(r"^# (?:Needs|and): +(staged .*)$", text, re.M))


def what_it_is(settings: ReinforceSettings) -> str:
    """Rows of the table at the head of a card."""
    drawn, reward, optimizer = settings.rollouts, settings.reward, settings.optimizer
    result = "adapter" if settings.lora is not None else "checkpoint"
    flow = drawn.num_flow_steps or "as the checkpoint says"
    probe = settings.probe
    return f"""| begins with | `{settings.init}` |
| prompts | `{settings.prompts}`{f", and `{probe.prompts}` to look" if probe else ""} |
| iterations | {settings.iterations:,} of {drawn.num_prompts} prompts, {drawn.group_size} rollouts \
of each |
| a rollout | rounds: at most {drawn.max_rounds}; refinements of each: {drawn.max_refinements}; \
flow steps: {flow} |
| graded by | {f"`{reward.scorer}`" if reward.scorer else "the detector"} |
| steps | of at most {settings.pack_tokens * settings.packs_per_step:,} tokens, in packs of \
{settings.pack_tokens:,} |
| optimizer | {optimizer.kind}, rate {optimizer.lr:g}, {optimizer.schedule}, the policy that draws \
keeps {optimizer.ema_decay:g} of itself |
| result | `{settings.out}/{result}` |"""


def learning(settings: ReinforceSettings, config: BagelConfig, ranks: int = 1) -> Forecast:
    """What its learning takes, as the planner counts a training with the same step."""
    return forecast(settings.training(), config, ranks)


def kept_to_draw(settings: ReinforceSettings, config: BagelConfig) -> int:
    """Bytes of one device while it draws: what it keeps, and caches for all that draw together.

    These are `rollouts.batch_size` rollouts, each as long as its limits allow.
    """
    parts = learning(settings, config).parts
    kept = sum(parts[name] for name in ("weights", "moments", "average"))
    footprint = Footprint(
        config=config,
        sizes=ImageSizes.of(config),
        dtype=torch.bfloat16,
        device=torch.device("cuda"),
        num_branches=_MAX_BRANCHES,
    )
    drawn = settings.rollouts
    longest = Lengths.of(
        drawn.policy(),
        image=footprint.image_tokens,
        text=drawn.max_text_tokens + 2,
        sketch_cost=drawn.num_flow_steps or 1,
    ).longest
    together = min(drawn.batch_size, drawn.num_prompts * drawn.group_size)
    return kept + together * longest * footprint.token + footprint.working(longest)


def full_size(
    settings: ReinforceSettings, config: BagelConfig, gpu: str, utilization: float
) -> str:
    """What one device needs, counted."""
    found, memory = learning(settings, config), GPUS[gpu].memory
    drawn = settings.rollouts
    rollouts = drawn.num_prompts * drawn.group_size
    steps = -(-rollouts * settings.epochs // settings.packs_per_step)
    minutes = steps * found.step_s(GPUS[gpu], utilization) / 60
    parts = ", ".join(f"{name} {size / _GIB:.1f}" for name, size in found.parts.items() if size)
    drawing = kept_to_draw(settings, config)
    return f"""Counted for one {gpu}, which has {memory / _GIB:.0f} GiB:

| | GiB |
|---|---|
| while it learns | {found.total / _GIB:.0f}: {parts}; with what the driver and fragments take |
| while it draws | at most {drawing / _GIB:.0f}: weights, moments, average, and keys and values of \
{min(drawn.batch_size, rollouts)} rollouts as long as their limits allow, and the \
largest call; without fragments |

What the grader keeps on the device comes on top. Learning from an iteration takes at most \
{steps} steps, a pack for each of {rollouts} rollouts, and so {minutes:.0f} minutes at \
{utilization:.0%} of the device's rate, {settings.iterations * minutes / 60:.0f} hours in all; the \
pass of the old policy is not counted, nor is drawing or grading."""


def measured(path: Path) -> str:
    """The first iterations that a run left."""
    run = json.loads(path.read_text())
    rows = "\n".join(
        f"| {line['step']} | {line['reward']:.3f} | {line['right']:.2f} | {line['compared']:.2f} | "
        f"{line['image_loss']:.3f} | {line['text_loss']:.3f} | {line['text_nats']:.3f} |"
        for line in run["log"]
    )
    return (
        f"Its first iteration ({run['date']}, {run['machine']}, torch {run['torch']}):\n\n"
        "| iteration | reward | right | compared | image_loss | text_loss | text_nats |\n"
        f"|---|---|---|---|---|---|---|\n{rows}\n\n"
        f"```sh\n{run['commands']}\n```\n\n"
        "What is drawn there is the shipped checkpoint's own. What later iterations gain is not "
        "recorded."
    )
