"""A tiny model that has learned a trajectory by heart."""

import tiny
import torch

from staged.engine.engine import Engine
from staged.model.attention import PackedAttention
from staged.model.bagel import Inputs
from staged.model.layout import SegmentKind, lay_out
from staged.model.loss import token_losses
from staged.sequence import interleave
from staged.trajectory import Trajectory


def learn(trajectory: Trajectory, num_steps: int, *, vision_only: bool = False) -> Engine:
    """Train on the words and openers of one trajectory, whatever its pictures show.

    With `vision_only`, images stand in it as ViT copies alone.
    """
    engine = tiny.engine()
    model = engine.model
    model.init_weights(torch.Generator().manual_seed(0))
    made = interleave(
        trajectory,
        engine.tokenizer.encode,
        engine.special,
        lambda ref: engine.codec.grids(*ref.array().shape[:2]),
    )
    kept = [s for s in made.segments if s.kind is not SegmentKind.CLEAN or not vision_only]
    layout = lay_out([kept], engine.special)
    attention = PackedAttention(layout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for step in range(num_steps):
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 * min(1, (step + 1) / 20, (num_steps - step) / num_steps * 2)
            latents = torch.randn(len(layout.latent_index), 12, generator=generator)
            shape = len(layout.vision_index), model.config.vision.patch_dim
            patches = torch.rand(shape, generator=generator) * 2 - 1
            hidden = model(layout, Inputs(latents, layout.noised.float(), patches), attention)
            losses = token_losses(model, hidden, layout, latents)
            loss = losses.ce_sum(layout) / layout.ce_weights.sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return engine
