"""The smallest pieces of the language: noun phrases, written and read.

A whole text is read by splitting it into these pieces, rebuilding what it says, and writing that
again: a text that is not exactly what would be written is an error. So there is one grammar, that
of the writers, and reading can never be more lenient than writing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from staged.shapes.world.scene import (
    COLORS,
    KINDS,
    RELATIONS,
    SIZES,
    Color,
    Kind,
    RelationName,
    Size,
)
from staged.shapes.world.spec import Thing

T = TypeVar("T")

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Number words from 1."""

PLURALS: dict[Kind, str] = {kind: kind + ("es" if kind in ("cross",) else "s") for kind in KINDS}
_KIND_OF: dict[str, Kind] = {kind: kind for kind in KINDS} | {
    plural: kind for kind, plural in PLURALS.items()
}
_COLOR_OF: dict[str, Color] = {color: color for color in COLORS}
_SIZE_OF: dict[str, Size] = {size: size for size in SIZES}
RELATION_OF: dict[str, RelationName] = {relation: relation for relation in RELATIONS}

NOUN = (
    rf"(?:an?|the|{'|'.join(NUMBERS)})(?: (?:the|{'|'.join(NUMBERS)}))?"
    rf"(?: (?:{'|'.join(SIZES)}))?(?: (?:{'|'.join(COLORS)}))? (?:{'|'.join(_KIND_OF)})"
)
"""Regular expression of a noun phrase; `read_noun` decides whether it is a proper one."""

RELATION = rf"(?:{'|'.join(RELATIONS)})"
"""Regular expression of a relation."""


class GrammarError(ValueError):
    """A text is not of the miniature world's language."""

    def __init__(self, text: str, expected: str) -> None:
        """Name the text and what would have been right."""
        super().__init__(f"{text!r:.300} is not {expected}")
        self.text = text


def words_of(thing: Thing) -> str:
    """Size, colour and kind, in the plural where there are several."""
    noun = thing.kind if thing.number == 1 else PLURALS[thing.kind]
    return " ".join(word for word in (thing.size, thing.color, noun) if word)


def a(thing: Thing) -> str:
    """Introduce a thing: "a red star", "an arrow", "three hearts"."""
    words = words_of(thing)
    if thing.number > 1:
        return f"{NUMBERS[thing.number - 1]} {words}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def the(thing: Thing) -> str:
    """Refer to a thing: "the red star", "the three hearts"."""
    if thing.number > 1:
        return f"the {NUMBERS[thing.number - 1]} {words_of(thing)}"
    return f"the {words_of(thing)}"


def some(thing: Thing) -> str:
    """So many out of more alike: "one heart", "two hearts"."""
    return f"{NUMBERS[thing.number - 1]} {words_of(thing)}"


def read_words(words: Sequence[str], number: int) -> Thing:
    """Size, colour and kind, without determiner.

    Raises:
        GrammarError: They are something else.
    """
    left = list(words)
    size = _SIZE_OF.get(left[0]) if left else None
    left = left[1:] if size else left
    color = _COLOR_OF.get(left[0]) if left else None
    left = left[1:] if color else left
    if len(left) != 1 or left[0] not in _KIND_OF:
        raise GrammarError(" ".join(words), "a size, a colour and a shape")
    return Thing(kind=_KIND_OF[left[0]], color=color, size=size, number=number)


def read_noun(text: str, *writers: Callable[[Thing], str]) -> Thing:
    """Read what one of `writers` (`a`, `the`, `some`) writes.

    Raises:
        GrammarError: No writer writes this.
    """
    words = text.split(" ")
    skip = 2 if len(words) > 1 and words[0] == "the" and words[1] in NUMBERS else 1
    count = words[skip - 1]
    number = NUMBERS.index(count) + 1 if count in NUMBERS else 1
    thing = read_words(words[skip:], number)
    if not any(writer(thing) == text for writer in writers):
        raise GrammarError(text, f"a shape after {' or '.join(w.__name__ for w in writers)!r}")
    return thing


def match(pattern: str, text: str, expected: str) -> re.Match[str]:
    """Match a whole text.

    Raises:
        GrammarError: It does not match.
    """
    found = re.fullmatch(pattern, text)
    if found is None:
        raise GrammarError(text, expected)
    return found


def exactly(value: T, writer: Callable[[T], str], text: str, expected: str) -> T:
    """Return what was read, if it would be written just so.

    Raises:
        GrammarError: It would be written otherwise, or cannot be.
    """
    if writer(value) != text:
        raise GrammarError(text, f"{expected}; it would be written {writer(value)!r}")
    return value
