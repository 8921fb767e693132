"""Numbers that are none: found before a clamp, a cast or a file can hide them.

NaN passes through a clamp, becomes 0 as a byte, and loses every comparison; an infinity becomes
white. So whatever is clamped, cast, compared or kept is checked before.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["NotFiniteError", "all_finite", "require_finite"]


class NotFiniteError(ValueError):
    """A result holds NaN or an infinity, and is none.

    Attributes:
        reason: What it is counted as, wherever failures are counted.
    """

    reason = "not_finite"

    def __init__(self, what: str) -> None:
        """Name what is not finite."""
        super().__init__(
            f"{what} not finite (NaN or infinite): damaged weights, a guidance scale that is too "
            "large, or too narrow a dtype"
        )


def all_finite(tensor: Tensor) -> Tensor:
    """Whether every number is finite, as a () bool tensor on the same device: nobody waits.

    One pass without a copy, also of tensors of gigabytes; integers are finite, and so is nothing.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return torch.ones((), dtype=torch.bool, device=tensor.device)
    if tensor.element_size() == 1:  # 8 bits: few operations know them
        tensor = tensor.float()
    low, high = torch.aminmax(tensor.detach())  # both are NaN where any number is
    return torch.isfinite(low) & torch.isfinite(high)


def require_finite(tensor: Tensor, what: str) -> None:
    """Raise unless every number is finite; waits for the tensor's device.

    Args:
        tensor: Any shape and type.
        what: What it is, with its verb: `the latents are`.

    Raises:
        NotFiniteError: NaN or an infinity among them.
    """
    if not bool(all_finite(tensor)):
        raise NotFiniteError(what)
