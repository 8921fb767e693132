"""What a library's error says, in the one line that there is for it in a message of ours."""

from __future__ import annotations

from typing import Final

MAX_CHARS: Final = 300
"""Of what is quoted: some libraries say all that they know."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, at most `MAX_CHARS` long; its type where it is mute."""
    return (str(error).strip() or type(error).__name__).split("\n")[0].rstrip()[:MAX_CHARS]
