"""A model that is divided among processes while it is loaded, so that none ever holds all of it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from staged.model.bagel import Bagel


class Division(Protocol):
    """How a model is divided; how training does it is not for the model to know."""

    def apply(self, model: Bagel) -> None:
        """Divide a model on the meta device, before it has memory; its names stay."""
        ...

    def rows_here(self, tensor: Tensor) -> tuple[Tensor, slice]:
        """The part of a tensor of the divided model that is of this process.

        Returns:
            Its memory, and which rows of the whole tensor it is.
        """
        ...


class Undivided:
    """One process, which has everything."""

    def apply(self, model: Bagel) -> None:
        """Leave the model as it is."""

    def rows_here(self, tensor: Tensor) -> tuple[Tensor, slice]:
        """All of it."""
        return tensor, slice(None)
