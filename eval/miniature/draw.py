"""Drawing samples: the loop of `staged generate` over many prompts, batch by batch."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from eval.miniature.settings import MiniatureSettings, Sample
from eval.miniature.store import Record, Store
from eval.results import versions
from staged.backends.bagel import BagelPlayer, BagelSettings
from staged.engine.engine import Engine
from staged.engine.sampling import FlowSettings
from staged.loops.casting import Casting, default_flow, open_engine
from staged.loops.events import Event, Failed, Stopped
from staged.loops.staged import StagedLoop
from staged.progress import Progress
from staged.sequence import step_text
from staged.settings import to_dict
from staged.trajectory import Sketch, Stop, Trajectory


def draw(
    settings: MiniatureSettings, samples: Sequence[Sample], store: Store, *, batch_size: int
) -> int:
    """Draw what the store does not hold yet.

    Args:
        settings: Who draws, how.
        samples: What.
        store: Where to.
        batch_size: Images that are drawn side by side, and kept together; a picture does not
            depend on it, up to the rounding of its last digits.

    Returns:
        Samples drawn now.

    Raises:
        ValueError: There is no such checkpoint, or the store holds pictures of another.
    """
    if batch_size < 1:
        raise ValueError(f"batch is {batch_size}; give at least 1")
    engine = open_engine(settings.checkpoint)
    flow = _flow(engine, settings)
    record = Record(
        settings=settings, flow=to_dict(flow), weights=weights_hash(engine), versions=versions()
    )
    store.claim(record)
    there = store.trajectories()
    missing = [sample for sample in samples if sample.key not in there]
    if not missing:
        return 0
    casting = Casting(
        planner=settings.planner, inspector=settings.inspector, sketcher=settings.sketcher
    )
    writing = BagelSettings(
        flow=flow, temperature=settings.temperature, max_text_tokens=settings.max_text_tokens
    )
    player = BagelPlayer(engine, writing)
    cast = casting.cast(player, settings.checkpoint)
    loop = StagedLoop(cast, casting.policy(settings.policy()), batch_size=batch_size)
    progress = Progress("images", len(samples), done=len(samples) - len(missing))

    def tell(event: Event) -> None:
        if isinstance(event, Stopped | Failed):
            progress.advance(note=f"{progress.rate():.1f} images/s")

    for first in range(0, len(missing), batch_size):
        batch = missing[first : first + batch_size]
        began = time.monotonic()
        finished = loop.run([s.prompt.text for s in batch], [s.seed for s in batch], tell)
        counted = [_with_text_tokens(engine, trajectory) for trajectory in finished]
        keyed = zip((sample.key for sample in batch), counted, strict=True)
        store.add(keyed, seconds=time.monotonic() - began)
    return len(missing)


def weights_hash(engine: Engine) -> str:
    """SHA-256 (hex) of every tensor, by name: the same weights, the same text."""
    digest = hashlib.sha256()
    for module in (engine.model, engine.autoencoder):
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _flow(engine: Engine, settings: MiniatureSettings) -> FlowSettings:
    """The checkpoint's defaults with what the settings change."""
    flow = default_flow(engine)
    guidance = replace(
        flow.guidance,
        **_given(text_scale=settings.guidance_scale, image_scale=settings.image_guidance_scale),
    )
    changes = _given(num_flow_steps=settings.num_flow_steps, timestep_shift=settings.timestep_shift)
    return replace(flow, guidance=guidance, **changes)


def _given(**values: float | None) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _with_text_tokens(engine: Engine, trajectory: Trajectory) -> Trajectory:
    """Note what the texts cost: tokens without their markers."""
    texts = [step for step in trajectory.steps if not isinstance(step, Sketch | Stop)]
    tokens = sum(len(engine.tokenizer.encode(step_text(step))) for step in texts)
    cost = {**trajectory.provenance.get("cost", {}), "text_tokens": tokens}
    return replace(trajectory, provenance={**trajectory.provenance, "cost": cost})
