"""The words in which the language model is asked, one file a kind of request.

A file begins with `version: …`, then comes what the model is told. Whoever wants other words names
a file of their own; the schema of the answer stays what it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from staged import strict_json
from staged.backends.lmm.request import LmmRequest, T

_FOLDER: Final = Path(__file__).parent
_HEAD: Final = re.compile(r"version: ([\w.-]{1,40})\n\n")
_MAX_BYTES: Final = 64 * 1024

PURPOSES: Final = tuple(sorted(path.stem for path in _FOLDER.glob("*.md")))
"""Kinds of requests."""


@dataclass(frozen=True)
class Words:
    """What a model is told with one kind of request.

    Attributes:
        version: As the file says, with the hash of its text behind it.
        text: The system message.
    """

    version: str
    text: str


class Wording:
    """The words of every kind of request.

    Args:
        own: Kind of request to a file that takes the place of ours.

    Raises:
        ValueError: there is no such kind of request, or a file is not as it must be.
        OSError: a file cannot be read.
    """

    def __init__(self, own: Mapping[str, Path] | None = None) -> None:
        """Read all files."""
        unknown = sorted(set(own or ()) - set(PURPOSES))
        if unknown:
            raise ValueError(
                f"wording: nothing is asked as {', '.join(unknown)}; there are "
                f"{', '.join(PURPOSES)}"
            )
        files = {purpose: _FOLDER / f"{purpose}.md" for purpose in PURPOSES} | dict(own or {})
        self._words = {purpose: _read(path) for purpose, path in files.items()}

    def text(self, purpose: str) -> str:
        """What the model is told."""
        return self._words[purpose].text

    def versions(self, *purposes: str) -> dict[str, str]:
        """Version of each kind of request, for provenance and for what decides a data set."""
        return {purpose: self._words[purpose].version for purpose in purposes}

    def request(
        self,
        purpose: str,
        content: Mapping[str, Any],
        answer: type[T],
        *images: bytes,
        seed: int = 0,
    ) -> LmmRequest[T]:
        """Ask for something.

        Args:
            purpose: Kind of request.
            content: The user message: one JSON object, so that any model finds every input under
                a name.
            answer: Schema of the answer.
            images: Encoded, after the message.
            seed: See `LmmRequest`.
        """
        words = self._words[purpose]
        return LmmRequest(
            purpose=purpose,
            prompt_version=words.version,
            instructions=words.text,
            content=(strict_json.dumps(content), *images),
            answer=answer,
            seed=seed,
        )


def _read(path: Path) -> Words:
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"{path}: larger than {_MAX_BYTES} bytes; instructions are short texts")
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no UTF-8 text: {error}") from None
    head = _HEAD.match(text)
    body = text[head.end() :].strip() if head else ""
    if head is None or not body:
        raise ValueError(
            f"{path}: expected 'version: NAME', an empty line, and what the model is told"
        )
    digest = hashlib.sha256(body.encode()).hexdigest()[:8]
    return Words(version=f"{head[1]} {digest}", text=body)
