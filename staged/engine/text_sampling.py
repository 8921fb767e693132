"""How a text block is written; read without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from staged.ranges import check_range

MAX_TEMPERATURE = 100.0
"""Beyond it every token is as likely as any other."""


@dataclass(frozen=True, kw_only=True)
class Forbidden:
    """What a text may not hold.

    Attributes:
        whole: Matches it, wherever it stands; never nothing.
        begun: Matches the end of a text that may still become such a match.
        ends: Of `whole`, what a writer means as the end of the text, which it then is, where
            anything has been said. None where nothing is.
    """

    whole: re.Pattern[str]
    begun: re.Pattern[str]
    ends: re.Pattern[str] | None = None


@dataclass(frozen=True, kw_only=True)
class TextSampling:
    """How a text block is written.

    Attributes:
        max_tokens: Tokens of the block at most, markers not counted.
        temperature: 0 takes the likeliest token.
        top_p: Nucleus kept, in (0, 1].
        seed: Of this block's draws.
        begins: What the block may begin with; empty, with anything. A step that may not come is
            then never written, and of those that may the likeliest is.
        without: What does not stand after that, and neither do markers other than the closing one.
            None forbids nothing. See `staged.engine.text_watch`.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    begins: tuple[str, ...] = ()
    without: Forbidden | None = None

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: A value is out of range, or a beginning is empty or forbidden.
        """
        if "" in self.begins:
            raise ValueError(f"begins {self.begins}: one is empty; leave all out to allow anything")
        if self.without is not None and any(map(self.without.whole.search, self.begins)):
            raise ValueError(f"begins {self.begins}: one holds what the text may not hold")
        check_range(self, "max_tokens", minimum=1)
        check_range(self, "temperature", minimum=0, maximum=MAX_TEMPERATURE)
        check_range(self, "top_p", minimum=0, maximum=1, above=True)
