"""Questions about images, the answers that count, and who answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
            "eleven", "twelve")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VqaQuestion:
    """One question about one image.

    Attributes:
        image: File of the image: PNG, WebP or JPEG.
        text: What is asked; all that the model gets beside the image.
        accepted: Answers that count, as `spellings` writes them.
    """

    image: Path
    text: str
    accepted: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class VqaAnswer:
    """How probable the accepted answers are.

    Attributes:
        probability: In [0, 1]; None where there is none.
        at_most: What it can be at most, where not every token's probability is known.
        reason: Why there is none.
        detail: What is known of that.
    """

    probability: float | None
    at_most: float | None = None
    reason: str = ""
    detail: str = ""


class Answerer(Protocol):
    """Answers questions about images."""

    name: str
    """Model, weights and how it is read, as a result's variant says them."""

    def answer(
        self, questions: Sequence[VqaQuestion], keep: Callable[[int, VqaAnswer], None]
    ) -> None:
        """Answer all, in any order.

        Args:
            questions: What is asked.
            keep: Called once for each with its index, as soon as the answer is there.

        Raises:
            ValueError: every question would fail.
        """
        ...


def spellings(answer: str) -> tuple[str, ...]:
    """Return the forms in which a one-word answer counts.

    As it is and capitalised, each with and without a space before it; a number up to twelve also
    in digits. For `yes` and for number words these are the forms that GenEval 2 accepts.

    Raises:
        ValueError: an empty answer.
    """
    word = answer.strip()
    if not word:
        raise ValueError(f"answer {answer!r}; expected a word")
    word = word.lower()
    if word.isascii() and word.isdigit() and int(word) < len(_NUMBERS):
        word = _NUMBERS[int(word)]
    forms = [word, word.capitalize()]
    if word in _NUMBERS:
        forms.append(str(_NUMBERS.index(word)))
    return tuple(dict.fromkeys(form for base in forms for form in (base, f" {base}")))
