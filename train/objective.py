"""What a run minimises, and the same losses by task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from staged.model.attention import Attend, PackedAttention
from staged.model.bagel import Bagel, Inputs
from staged.model.layout import Layout
from staged.model.loss import TokenLosses, token_losses
from train.packing import Pack


class Objective(nn.Module):
    """The model with its losses, so that one functional call covers both."""

    def __init__(
        self,
        model: Bagel,
        *,
        max_logits_mib: int = 1024,
        attend_to: Callable[[Layout], Attend] = PackedAttention,
    ) -> None:
        """Wrap `model`, which attends as `attend_to` plans; see `token_losses`."""
        super().__init__()
        self.model, self.max_logits_mib, self._attend_to = model, max_logits_mib, attend_to

    def forward(self, pack: Pack) -> TokenLosses:
        """Unreduced losses of a pack."""
        hidden = self.model(pack.layout, pack.inputs, self._attend_to(pack.layout))
        return token_losses(
            self.model, hidden, pack.layout, pack.target, max_logits_mib=self.max_logits_mib
        )


def forward_in(
    dtype: torch.dtype,
    objective: nn.Module,
    pack: Pack,
    *,
    weights: Mapping[str, Tensor] | None = None,
    sharded: bool = False,
) -> Any:
    """Forward in a working dtype; gradients flow back to the float32 parameters.

    Args:
        dtype: Of what is computed.
        objective: Has the model as `model`, and is called with the pack.
        pack: On the model's device.
        weights: What takes the place of parameters of the model, by name; None leaves all.
        sharded: The parameters are cast as they are gathered.

    Returns:
        What the objective returns.
    """
    # Not autocast: it chooses a type for each operation, and generation, which runs in one type
    # throughout, would then compute something else. Gradients of the casts arrive in float32.
    model = objective.get_submodule("model")
    cast = {f"model.{n}": b.to(dtype) for n, b in model.named_buffers()}
    if not sharded:
        held = dict[str, Tensor](model.named_parameters()) | dict(weights or {})
        cast |= {f"model.{n}": p.to(dtype) for n, p in held.items()}
    inputs = Inputs(
        pack.inputs.latents.to(dtype),
        # Times are narrowed only as sinusoids; see `Bagel.embed`.
        pack.inputs.timesteps,
        pack.inputs.patches.to(dtype),
    )
    return functional_call(objective, cast, (replace(pack, inputs=inputs),))


@dataclass(frozen=True)
class Supervised:
    """How much of a step is supervised: what its losses are divided by.

    Attributes:
        words: Sum of the weights of all labels.
        latents: Sum of the weights of all latent tokens whose velocity is supervised.
    """

    words: float
    latents: float

    @classmethod
    def of(cls, pack: Pack) -> Supervised:
        """Count in a pack."""
        return cls(pack.layout.ce_weights.sum().item(), pack.velocity_weights.sum().item())

    @classmethod
    def total(cls, packs: Sequence[Supervised]) -> Supervised:
        """Add up over a step's packs, in their order: sums of weights depend on it."""
        return cls(sum(pack.words for pack in packs), sum(pack.latents for pack in packs))


def mean_losses(losses: TokenLosses, pack: Pack, step: Supervised) -> tuple[Tensor, Tensor]:
    """What a pack adds to a step's mean cross entropy (weighted) and velocity error.

    Sums over the counts of the whole step, not means of means: a token weighs the same however
    samples are packed and packs are spread. A step without such tokens has a mean of 0.

    Args:
        losses: Of the pack.
        pack: One of the step's.
        step: Counts over all packs of the step.
    """
    return (
        losses.ce_sum(pack.layout) / max(step.words, 1e-9),
        losses.mse_sum(pack.velocity_weights) / max(step.latents, 1e-9),
    )


TaskSums = dict[str, tuple[float, float]]
"""Sum and count of a loss, under `ce/<task>` and `mse/<task>`."""


@dataclass(frozen=True)
class PackLosses:
    """What a pack adds to its step's losses.

    Attributes:
        loss: What is minimised.
        ce: Nats.
        mse: Squared error a number.
        tasks: Sums and counts of its own, by task.
        not_finite: Places in the pack of the samples that a loss of nan or infinity comes from.
    """

    loss: float
    ce: float
    mse: float
    tasks: TaskSums
    not_finite: tuple[int, ...] = ()

    @classmethod
    def of(cls, pack: Pack, losses: TokenLosses, loss: Tensor, ce: Tensor, mse: Tensor) -> Self:
        """Read off the device what `mean_losses` and `token_losses` made of a pack."""
        value = loss.item()
        strange = () if math.isfinite(value) else samples_not_finite(losses, pack)
        return cls(value, ce.item(), mse.item(), task_sums(losses, pack), strange)


@torch.no_grad()
def samples_not_finite(losses: TokenLosses, pack: Pack) -> tuple[int, ...]:
    """Places in a pack of samples with a loss that is nan or infinite, of a label or a latent."""
    of_label, of_velocity = _sample_of_losses(losses, pack.layout)
    strange = (of_label[~losses.ce.isfinite()], of_velocity[~losses.mse.isfinite().all(dim=-1)])
    return tuple(sorted({place for places in strange for place in places.tolist()}))


def _sample_of_losses(losses: TokenLosses, layout: Layout) -> tuple[Tensor, Tensor]:
    """(num_labels,) and (num_velocity,) int64: in which sample each loss lies."""
    samples = layout.sample_ids().to(losses.ce.device)
    return samples[layout.ce_index], samples[layout.latent_index[layout.velocity_rows]]


@torch.no_grad()
def task_sums(losses: TokenLosses, pack: Pack) -> TaskSums:
    """Losses over the samples of each task, where a pack supervises any of it."""
    layout, names = pack.layout, sorted(set(pack.tasks))
    # Filler samples at the end have no task, and nothing in them is supervised.
    number = torch.zeros(len(layout.sample_lens), dtype=torch.int64)
    number[: len(pack.tasks)] = torch.tensor([names.index(task) for task in pack.tasks])
    number = number.to(losses.ce.device)
    of_label, of_velocity = _sample_of_losses(losses, layout)
    terms = {
        "ce": (number[of_label], losses.ce * layout.ce_weights, layout.ce_weights),
        "mse": (
            number[of_velocity],
            losses.mse.mean(dim=-1) * pack.velocity_weights,
            pack.velocity_weights,
        ),
    }
    found: TaskSums = {}
    for kind, (tasks, values, counts) in terms.items():
        sums = torch.zeros(2, len(names), device=number.device)
        sums[0].index_add_(0, tasks, values)
        sums[1].index_add_(0, tasks, counts)
        for name, total, count in zip(names, *sums.tolist(), strict=True):
            if count:
                found[f"{kind}/{name}"] = (total, count)
    return found


def task_means(packs: Iterable[TaskSums]) -> dict[str, float]:
    """The means over several packs: `ce/<task>` in nats, `mse/<task>` a number."""
    return _means((name, both) for sums in packs for name, both in sums.items())


def kind_means(packs: Iterable[TaskSums]) -> dict[str, float]:
    """The means over all tasks of several packs: `ce` in nats, `mse` a number."""
    return _means((name.split("/")[0], both) for sums in packs for name, both in sums.items())


def _means(sums: Iterable[tuple[str, tuple[float, float]]]) -> dict[str, float]:
    totals: dict[str, list[float]] = {}
    for name, (total, count) in sums:
        both = totals.setdefault(name, [0.0, 0.0])
        both[0] += total
        both[1] += count
    return {name: total / count for name, (total, count) in sorted(totals.items())}
