"""A user message as one JSON object with images between its words, each where it belongs.

A model that reads the message in order meets an image right behind its mention. The texts joined
are the JSON, in which `{"image": 2}` is the second image: so a program, the miniature world's
language model among them, finds every input under a name.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def interleaved(content: Mapping[str, Any]) -> tuple[str | bytes, ...]:
    """Write plain data that hold images as the content of a request.

    Args:
        content: Plain JSON data, in the order in which it is to be read; encoded images are bytes.

    Returns:
        Texts, and the images between them.

    Raises:
        ValueError: A number is not finite.
    """
    parts: list[str | bytes] = []
    said: list[str] = []
    number = 0

    def write(node: Any) -> None:
        nonlocal number
        if isinstance(node, bytes):
            number += 1
            said.append(f'{{"image": {number}}}')
            parts.append("".join(said))
            parts.append(node)
            said.clear()
        elif isinstance(node, Mapping):
            _joined("{", [(json.dumps(str(key), ensure_ascii=False) + ": ", item)
                          for key, item in node.items()], "}")  # fmt: skip
        elif isinstance(node, Sequence) and not isinstance(node, str):
            _joined("[", [("", item) for item in node], "]")
        else:
            said.append(json.dumps(node, ensure_ascii=False, allow_nan=False))

    def _joined(opening: str, items: Sequence[tuple[str, Any]], closing: str) -> None:
        said.append(opening)
        for place, (name, item) in enumerate(items):
            said.append((", " if place else "") + name)
            write(item)
        said.append(closing)

    write(content)
    parts.append("".join(said))
    return tuple(parts)
