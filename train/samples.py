"""Pictures from fixed prompts while a run learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from staged.engine.context import Context
from staged.engine.engine import Engine
from staged.images import encode_png
from staged.jobs.files import write_whole
from staged.model.bagel import Bagel
from staged.model.codec import ImageCodec
from staged.model.flows import FlowSettings
from staged.model.tokenizer import BagelTokenizer
from train.settings import Log


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
    engine = Engine(model, codec, tokenizer)
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
    sheet = np.concatenate([drawing.pixels for drawing in drawings], axis=1)
    if path is not None:
        write_whole(path, encode_png(sheet))
    return sheet
