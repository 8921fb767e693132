"""Keeps out of a text what it may not hold, such as the tags of other steps.

A tag may be several tokens, and the first of them may as well begin something else ("a < b"). So
nothing is refused before a tag is whole. Then the text is taken back to the token in which the tag
begins, and goes on there with the likeliest (or drawn) token that does not hold the tag's first
character; or it ends there, where the tag is one that closes. What would not have become a tag
comes out as if nobody had watched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from staged.engine.text_sampling import Forbidden
from staged.model.tokenizer import BagelTokenizer


class TextWatch:
    """Watches one block that is being written.

    Attributes:
        ended: What was taken back last is meant as the end of the text.
    """

    def __init__(
        self, forbidden: Forbidden, tokenizer: BagelTokenizer, *, num_free: int = 0
    ) -> None:
        """Watch for what is forbidden.

        Args:
            forbidden: What the text may not hold.
            tokenizer: Of the ids.
            num_free: So many tokens at the beginning are not looked at.
        """
        self._forbidden, self._tokenizer = forbidden, tokenizer
        special = tokenizer.special
        self._markers = frozenset(vars(special).values()) - {special.text_end}
        self.ended = False
        self._settled = list(range(num_free + 1))  # by number of tokens so far
        self._refused_at, self._refused = -1, set[str]()  # first characters, at that place

    def settled(self, ids: Sequence[int]) -> int:
        """How many of the tokens so far nothing takes back any more."""
        return self._settled[len(ids)]

    def refuses(self, ids: Sequence[int], token: int) -> bool:
        """Whether a token may not come after the tokens so far; the closing marker always may."""
        if token in self._markers:
            return True
        if len(ids) != self._refused_at:
            return False
        return not self._refused.isdisjoint(self._tokenizer.decode([token]))

    def keep(self, ids: Sequence[int]) -> int:
        """Look at the newest token; returns how many of all are kept, the others go back."""
        start = self._settled[-1]
        place = self._place(self._forbidden.whole, ids, start)
        if place is None:
            begun = self._place(self._forbidden.begun, ids, start)
            # Where that goes back, what stands before it is the end, and may begin something too
            # ("<" of "<<ins"): no more is settled than was then.
            self._settled.append(len(ids) if begun is None else self._settled[begun])
            return len(ids)
        whole = self._forbidden.whole.search(self._tokenizer.decode(ids[place:]))
        assert whole is not None
        if place != self._refused_at:
            self._refused_at, self._refused = place, set()
        self._refused.add(whole.group()[0])
        if self._forbidden.ends is not None and self._forbidden.ends.fullmatch(whole.group()):
            self.ended = bool(self._tokenizer.decode(ids[:place]).strip())
        del self._settled[place + 1 :]
        return place

    def _place(self, pattern: re.Pattern[str], ids: Sequence[int], start: int) -> int | None:
        """The last token from `start` such that the text from it on has a match."""
        if not pattern.search(self._tokenizer.decode(ids[start:])):
            return None
        return next(
            place
            for place in reversed(range(start, len(ids)))
            if pattern.search(self._tokenizer.decode(ids[place:]))
        )
