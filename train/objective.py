"""What a run minimises, and the same losses by task."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from staged.model.attention import PackedAttention
from staged.model.bagel import Bagel
from staged.model.loss import TokenLosses, token_losses
from train.packing import Pack


class Objective(nn.Module):
    """The model with its losses, so that one functional call covers both."""

    def __init__(self, model: Bagel) -> None:
        """Wrap `model`."""
        super().__init__()
        self.model = model

    def forward(self, pack: Pack) -> TokenLosses:
        """Unreduced losses of a pack."""
        hidden = self.model(pack.layout, pack.inputs, PackedAttention(pack.layout))
        return token_losses(self.model, hidden, pack.layout, pack.target)


def mean_losses(losses: TokenLosses, pack: Pack) -> tuple[Tensor, Tensor]:
    """Means over all supervised tokens of a step: cross entropy (weighted), velocity error.

    Sums over counts, not means of means: a token weighs the same however samples are packed.
    A pack without such tokens has a mean of 0.
    """
    ce = losses.ce_sum(pack.layout) / pack.layout.ce_weights.sum().clamp(min=1e-9)
    return ce, losses.mse_sum() / max(len(pack.layout.velocity_rows), 1)


@torch.no_grad()
def losses_by_task(losses: TokenLosses, pack: Pack) -> dict[str, float]:
    """The same means over the samples of each task.

    Returns:
        `ce/<task>` and `mse/<task>`, where the pack supervises any of it.
    """
    layout, names = pack.layout, sorted(set(pack.tasks))
    # Filler samples at the end have no task, and nothing in them is supervised.
    number = torch.zeros(len(layout.sample_lens), dtype=torch.int64)
    number[: len(pack.tasks)] = torch.tensor([names.index(task) for task in pack.tasks])
    of_place = number.repeat_interleave(torch.tensor(layout.sample_lens)).to(losses.ce.device)
    of_label = of_place[layout.ce_index]
    of_velocity = of_place[layout.latent_index[layout.velocity_rows]]
    terms = {
        "ce": (of_label, losses.ce * layout.ce_weights, layout.ce_weights),
        "mse": (of_velocity, losses.mse.mean(dim=-1), torch.ones_like(of_velocity).float()),
    }
    means = {}
    for kind, (tasks, values, counts) in terms.items():
        sums = torch.zeros(2, len(names), device=of_place.device)
        sums[0].index_add_(0, tasks, values)
        sums[1].index_add_(0, tasks, counts)
        for name, total, count in zip(names, *sums.tolist(), strict=True):
            if count:
                means[f"{kind}/{name}"] = total / count
    return means
