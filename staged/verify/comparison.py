"""One compared tensor, and the table of them that a run prints."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from staged.verify.choices import TOLERANCE

__all__ = ["TOLERANCE", "Comparison", "Comparisons", "compare"]

"""Largest allowed error of a real tensor, relative to the reference's largest magnitude."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far a tensor lies from its reference.

    Attributes:
        group: Part of the model it belongs to.
        name: What was compared.
        shape: Shape found; where it differs from the reference's, both errors are infinite.
        absolute: Largest absolute error.
        relative: That error over the reference's largest magnitude.
        passed: Within tolerance; integers and booleans must be equal.
    """

    group: str
    name: str
    shape: tuple[int, ...]
    absolute: float
    relative: float
    passed: bool

    def line(self) -> str:
        """The comparison as one line of text."""
        shape = "x".join(map(str, self.shape)) or "scalar"
        verdict = "ok" if self.passed else "FAILED"
        return (
            f"{self.group:<9} {self.name:<88} {shape:>10}  "
            f"abs {self.absolute:.2e}  rel {self.relative:.2e}  {verdict}"
        )


def compare(
    group: str, name: str, found: Tensor, expected: Tensor, *, tolerance: float = TOLERANCE
) -> Comparison:
    """Compare a tensor with its reference.

    Args:
        group: Part of the model it belongs to.
        name: What is compared.
        found: Ours, of any type and device.
        expected: The reference.
        tolerance: Allowed relative error of real tensors.

    Returns:
        The comparison; values that are not finite, another shape, or integers where reals are
        expected (or the reverse) fail it.
    """
    shape = tuple(found.shape)
    exact = not expected.is_floating_point()
    absolute = relative = math.inf
    if shape == tuple(expected.shape) and exact != found.is_floating_point():
        reference = expected.detach().cpu().double()
        difference = (found.detach().cpu().double() - reference).abs()
        absolute = difference.max().item() if difference.numel() else 0.0
        magnitude = reference.abs().max().item() if reference.numel() else 0.0
        relative = absolute / magnitude if magnitude else absolute
    # Written so that NaN fails.
    passed = absolute == 0 if exact else relative <= tolerance
    return Comparison(
        group=group, name=name, shape=shape, absolute=absolute, relative=relative, passed=passed
    )


@dataclass(kw_only=True)
class Comparisons:
    """Comparisons in the order they were made, announced as they are.

    Attributes:
        tolerance: Allowed relative error of real tensors.
        announce: Called with each line of text.
        made: All comparisons so far.
    """

    tolerance: float = TOLERANCE
    announce: Callable[[str], None] = print
    made: list[Comparison] = field(default_factory=list)

    def add(self, group: str, name: str, found: Tensor | bool | float, expected: Tensor) -> None:
        """Compare and announce; a Python number is compared as a scalar."""
        if not isinstance(found, Tensor):
            found = torch.tensor(found)
        comparison = compare(group, name, found, expected, tolerance=self.tolerance)
        self.made.append(comparison)
        self.announce(comparison.line())

    @property
    def failed(self) -> list[Comparison]:
        """Those that did not pass."""
        return [comparison for comparison in self.made if not comparison.passed]
