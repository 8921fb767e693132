"""One step of training: what packs do to a run's model."""

from __future__ import annotations

import math
from collections.abc import Iterable

from staged.model.loss import TokenLosses
from train.clipping import clip_gradients
from train.examples import Examples
from train.objective import PackLosses, Supervised, forward_in, mean_losses, task_means
from train.optimizer import Optimizers, learning_rate
from train.packing import Pack
from train.plan import PackPlan
from train.run_model import RunModel
from train.sharding import sum_over_replicas
from train.stream import in_order


class Learner(RunModel):
    """A run's model, and what changes it.

    Attributes:
        optimizer: Of its parameters.
        examples: That packs hold, by whose names a sample is told that cannot be learned from.
        plan: Which of them each pack holds.
        step: Steps that were taken.
    """

    optimizer: Optimizers
    examples: Examples
    plan: PackPlan
    step: int

    def train_step(self, *packs: Pack) -> dict[str, float]:
        """One optimizer step over one or more packs, one after the other.

        Returns:
            Losses (nats and squared error a number), also by task, gradient norm and learning
            rate.

        Raises:
            ValueError: A loss or the gradient is not finite; the weights are as before the step.
        """
        settings = self.settings
        counts = in_order(self.ranks.gather([Supervised.of(pack) for pack in packs]))
        supervised = Supervised.total(counts)
        mine = []
        for turn, pack in enumerate(packs, start=1):
            pack = pack.to(self.device)
            losses = self._forward(pack)
            ce, mse = mean_losses(losses, pack, supervised)
            loss = settings.ce_weight * ce + mse
            sum_over_replicas(self.objective, turn == len(packs))
            loss.backward()
            mine.append(PackLosses.of(pack, losses, loss, ce, mse))
        # Only now: where one rank left before its backward pass, the others would wait in theirs.
        found = in_order(self.ranks.gather(mine))
        for place, pack_losses in enumerate(found):
            detail = f" (ce {pack_losses.ce}, mse {pack_losses.mse})"
            found_in = [(place, pack_losses.not_finite)]
            self._require_finite("loss", pack_losses.loss, found_in, detail)
        record = {
            name: sum(getattr(pack_losses, name) for pack_losses in found)
            for name in ("loss", "ce", "mse")
        }
        norm = clip_gradients(self.parameters.values(), settings.optimizer.max_grad_norm)
        # A finite loss can have an infinite gradient, and moments would keep it for good.
        found_in = [(place, ()) for place in range(settings.packs_per_step)]
        self._require_finite("gradient norm", norm, found_in)
        lr = learning_rate(self.step, settings.num_steps, settings.optimizer)
        self.optimizer.step(lr)
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.parameters.values(), self.step)
        return (
            record
            | {"grad_norm": norm, "lr": lr}
            | task_means(pack_losses.tasks for pack_losses in found)
        )

    def _forward(self, pack: Pack) -> TokenLosses:
        """Forward in the working dtype; see `forward_in`."""
        losses: TokenLosses = forward_in(
            self.dtype, self.objective, pack, sharded=self.mesh is not None
        )
        return losses

    def _require_finite(
        self,
        what: str,
        value: float,
        found_in: Iterable[tuple[int, tuple[int, ...]]],
        detail: str = "",
    ) -> None:
        """Name the samples that a number comes from.

        Args:
            what: The number is.
            value: The number.
            found_in: Of the step's packs those that it comes from, each with the places of samples
                in it; without any, it may be each.
            detail: Told behind the value.
        """
        if math.isfinite(value):
            return
        self.optimizer.zero_grad()
        first, samples, known = self.step * self.settings.packs_per_step, list[str](), True
        for number, places in found_in:
            names = [self.examples.name(sample) for sample, _ in self.plan.pack(first + number)]
            of_some = [names[place] for place in places if place < len(names)]  # filler has none
            known = known and 0 < len(of_some) < len(names)
            samples += of_some or names
        more = f" and {len(samples) - 4} more" if len(samples) > 4 else ""
        raise ValueError(
            f"the {what} is {value} at step {self.step}{detail}; "
            f"{'it comes from' if known else 'the pack holds'} {', '.join(samples[:4])}{more}. "
            "Look at these samples; or start another `out` with a lower optimizer.lr or "
            "dtype=float32"
        )
