"""Whose choice of pictures says what: names of verifiers, and of judges that are the same."""

from __future__ import annotations

NOT_SELF_TESTED = ", not self-tested"
"""What the name of a detector ends with that nobody tested; see `staged eval detect`."""


def is_judge(verifier: str, judge: str) -> bool:
    """Whether who chose the pictures is who scores them, by their names.

    The scores are then what the search looked for: an upper bound of what it is worth.
    """
    return bool(verifier) and verifier.removesuffix(NOT_SELF_TESTED) == judge.removesuffix(
        NOT_SELF_TESTED
    )


UPPER_BOUND = "chosen by the judge itself: an upper bound"
"""What such a result says."""
