"""Cross entropy of a linear head, without the logits of all rows at once.

Over 152,064 words the logits of a thousand rows are 0.6 GB in float32, and softmax, gradient and
their narrow copies stand beside them. In pieces, each made again when its gradient is due, they
take what one piece takes, for one more product of the head.

Letters: n labelled rows, C hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_WORDS = 1 << 14


class WordHead(nn.Linear):
    """The head over the vocabulary, without a bias."""

    def __init__(self, width: int, vocab_size: int) -> None:
        """Make the weight, (V, C)."""
        super().__init__(width, vocab_size, bias=False)

    def forward(
        self, hidden: Tensor, labels: Tensor | None = None, max_logits_mib: int = 1024
    ) -> Tensor:
        """Logits, or cross entropies.

        Both by one call of the module, since sharded training gathers the weight around calls.

        Args:
            hidden: (n, C).
            labels: (n,) int64 ids; None asks for logits.
            max_logits_mib: See `cross_entropy`.

        Returns:
            (n, V) logits in the dtype of `hidden`, or (n,) float32 nats.
        """
        if labels is None:
            return F.linear(hidden, self.weight)
        return cross_entropy(hidden, self.weight, labels, max_logits_mib=max_logits_mib)


def cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, *, max_logits_mib: int = 1024
) -> Tensor:
    """Cross entropy of each row against its label.

    Logits are widened to float32, for in bfloat16 a softmax would compare 8 bits of each.

    Args:
        hidden: (n, C).
        weight: (V, C), of the same dtype.
        labels: (n,) int64.
        max_logits_mib: MiB of float32 logits that stand at a time. Where all fit nothing is made
            twice.

    Returns:
        (n,) float32 nats.
    """
    rows = max(1, (max_logits_mib << 20) // (4 * len(weight)))
    if len(hidden) <= rows:
        return F.cross_entropy(F.linear(hidden, weight).float(), labels, reduction="none")
    losses: Tensor = _Pieces.apply(hidden, weight, labels, rows)  # type: ignore[no-untyped-call]
    return losses


class _Pieces(torch.autograd.Function):
    """Keeps one number a row, the logarithm of the softmax's sum, and makes logits again."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, rows: int) -> Tensor:
        totals, losses = [], []
        for part, ids in zip(hidden.split(rows), labels.split(rows), strict=True):
            logits = F.linear(part, weight).float()
            totals.append(logits.logsumexp(dim=-1))
            losses.append(totals[-1] - logits.gather(1, ids[:, None])[:, 0])
        ctx.save_for_backward(hidden, weight, labels, torch.cat(totals))
        ctx.rows = rows
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, weight, labels, totals = ctx.saved_tensors
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        # Summed in float32: of a hundred pieces each in bfloat16 the sum would lose bits that one
        # product over all rows keeps.
        of_weight = (
            torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        )
        for start in range(0, len(hidden), ctx.rows):
            piece = slice(start, start + ctx.rows)
            by_logit = F.linear(hidden[piece], weight).float()
            by_logit.sub_(totals[piece, None]).exp_()
            by_logit.scatter_add_(
                1, labels[piece, None], by_logit.new_full((1, 1), -1.0).expand(len(by_logit), 1)
            )
            narrow = by_logit.mul_(gradient[piece, None]).to(weight.dtype)
            if of_hidden is not None:
                torch.mm(narrow, weight, out=of_hidden[piece])
            if of_weight is not None:
                _add_product(of_weight, narrow, hidden[piece])
        return of_hidden, None if of_weight is None else of_weight.to(weight.dtype), None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add (n, V) transposed times (n, C) to a float32 (V, C)."""
    if left.dtype == total.dtype:
        torch.addmm(total, left.mT, right, out=total)
        return
    for words in range(0, len(total), _WORDS):  # no second (V, C) beside the sum
        part = slice(words, words + _WORDS)
        total[part] += left[:, part].mT @ right
