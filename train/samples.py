"""Pictures from fixed prompts while a run learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from staged.backends.bagel import BagelPlayer
from staged.backends.bagel_settings import BagelSettings
from staged.engine.context import Context
from staged.engine.engine import Engine
from staged.images import encode_png
from staged.jobs.files import write_whole
from staged.loops.policy import Policy
from staged.loops.roles import Roles
from staged.loops.staged import StagedLoop
from staged.model.bagel import Bagel
from staged.model.codec import ImageCodec
from staged.model.flows import Flows, FlowSettings
from staged.model.tokenizer import BagelTokenizer
from staged.trajectory_folder import save_trajectory
from train.settings import Log

_CACHED_TOKENS = 1 << 16
_MAX_SKETCHES = 8


def draw_sheet(
    model: Bagel,
    codec: ImageCodec,
    tokenizer: BagelTokenizer,
    flow: FlowSettings,
    log: Log,
    path: Path | None,
) -> NDArray[np.uint8]:
    """Draw every prompt at once, without planning, and keep the row of pictures.

    Args:
        model: To draw with; see `Engine`, as the next two.
        codec: Of its pictures.
        tokenizer: Of its prompts.
        flow: How to draw.
        log: Prompts and network evaluations.
        path: Where to keep the row; None keeps it nowhere.

    Returns:
        (h, sum of w, 3) uint8.
    """
    engine = Engine(model, codec, tokenizer, shares_calls=False)  # ranks must ask alike
    contexts = [Context() for _ in log.sample_prompts]
    engine.append_text(contexts, log.sample_prompts)
    side = codec.sizes.latent_max
    drawings = engine.draw(
        contexts,
        [Context() for _ in contexts],
        # No picture stands in them, so this branch is not read.
        contexts,
        sizes=[(side, side)] * len(contexts),
        seeds=list(range(len(contexts))),
        settings=[flow.otherwise(num_flow_steps=log.sample_flow_steps)] * len(contexts),
    )
    return _kept([drawing.pixels for drawing in drawings], path)


def draw_trajectories(
    model: Bagel,
    codec: ImageCodec,
    tokenizer: BagelTokenizer,
    flows: Flows,
    log: Log,
    path: Path | None,
) -> NDArray[np.uint8]:
    """Take every prompt through the loop, and keep the trajectories and the row of last pictures.

    Whatever is asked of a model that several ranks share is asked by all of them in the same order:
    nothing here depends on how much memory a rank has, or on how fast it is.

    Args:
        model: To plan and draw with; see `Engine`, as the next two.
        codec: Of its pictures.
        tokenizer: Of its texts.
        flows: How to draw.
        log: Prompts and network evaluations.
        path: Where to keep the row; the trajectories are in a folder of its name. None keeps
            nothing.

    Returns:
        (h, sum of w, 3) uint8; grey where a trajectory came to no picture.
    """
    flows = flows.each(lambda flow: flow.otherwise(num_flow_steps=log.sample_flow_steps))
    # What may share a call each rank would try for itself, and one that found otherwise would ask
    # a model that they share another number of times: all would wait for one another for ever.
    engine = Engine(model, codec, tokenizer, flows=flows, shares_calls=False)
    playing = BagelSettings(flows=flows, temperature=0.0, max_cached_tokens=_CACHED_TOKENS)
    # What fails is to be seen, and not tried again.
    policy = Policy(max_attempts=1, max_flow_steps=_MAX_SKETCHES * log.sample_flow_steps)
    roles = Roles.of(BagelPlayer(engine, playing), "as it stands")
    ended = StagedLoop(roles, policy).run(log.sample_prompts, range(len(log.sample_prompts)))
    side = codec.sizes.latent_max
    blank = np.full((side, side, 3), 128, dtype=np.uint8)
    pictures = []
    for number, trajectory in enumerate(ended):
        last = trajectory.last_sketch
        pictures.append(blank if last is None else last.image.array())
        if path is not None:
            save_trajectory(path.with_suffix("") / str(number), trajectory)
    return _kept(pictures, path)


def _kept(pictures: Sequence[NDArray[np.uint8]], path: Path | None) -> NDArray[np.uint8]:
    sheet = np.concatenate(pictures, axis=1)
    if path is not None:
        write_whole(path, encode_png(sheet))
    return sheet
