"""Put probes to a model, in batches, and judge what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from eval.skills.judge import Judged, judge
from eval.skills.probes import Probe
from staged.backends.bagel import BagelPlayer
from staged.backends.bagel_settings import BagelSettings
from staged.engine.engine import Engine
from staged.jobs.progress import Progress
from staged.model.flows import Flows
from staged.roles import RoleError, StepRequest
from staged.trajectory import Step


def ask(
    engine: Engine,
    probes: Sequence[Probe],
    *,
    batch_size: int,
    progress: Progress,
    flows: Flows | None = None,
) -> list[Judged]:
    """Put probes to a model.

    Args:
        engine: Of the model.
        probes: What to ask.
        batch_size: How many side by side.
        progress: Told of each batch.
        flows: How to draw; None: as the checkpoint says.

    Returns:
        What was judged of each, in the same order.
    """
    settings = BagelSettings(flows=flows or engine.flows)
    judged: dict[int, Judged] = {}
    for batch in _batches(probes, batch_size):
        asked = [probes[index] for index in batch]
        player = BagelPlayer(engine, settings)  # a new one: what it has read never comes again
        asks = [StepRequest(trajectory=p.trajectory, moves=(p.move,), seed=p.seed) for p in asked]
        answers: Sequence[Step | RoleError]
        answers = player.draw(asks) if asked[0].move == "sketch" else player.write(asks)
        for index, probe, step in zip(batch, asked, answers, strict=True):
            judged[index] = judge(probe, step)
        progress.advance(len(batch))
    return [judged[index] for index in range(len(probes))]


def _batches(probes: Sequence[Probe], size: int) -> Iterator[list[int]]:
    """Batches of one move each: drawing and writing are different calls."""
    for move in ("sketch", "inspect sketch"):
        rest = (index for index, probe in enumerate(probes) if probe.move == move)
        while batch := list(islice(rest, size)):
            yield batch
