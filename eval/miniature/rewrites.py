"""Prompts that are drawn in other words than they are asked in, as a prompt optimiser writes them.

What is scored stays what was asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from staged import strict_json
from staged.generate.requests import read_prompts


@dataclass(frozen=True, kw_only=True)
class RewriteSettings:
    """Two files of prompts, one a line, in the same order."""

    prompts: Path
    """As they are asked; there may be more than are drawn."""
    rewritten: Path
    """What is drawn for each, as `staged self-reward optimise --prompts FILE --out FILE` writes."""


def read_rewrites(settings: RewriteSettings, wanted: Iterable[str]) -> dict[str, str]:
    """Read what is drawn for each prompt.

    Args:
        settings: Where it stands.
        wanted: Prompts that are asked.

    Raises:
        ValueError: A file is damaged, they do not belong together, or a prompt has no rewrite.
    """
    asked, written = read_prompts(settings.prompts), read_prompts(settings.rewritten)
    if len(asked) != len(written):
        raise ValueError(
            f"{settings.prompts} has {len(asked)} prompts and {settings.rewritten} {len(written)}; "
            "write the rewrites anew"
        )
    known = dict(zip(asked, written, strict=True))
    found = {prompt: known.get(prompt) for prompt in wanted}
    missing = [prompt for prompt, text in found.items() if text is None]
    if missing:
        raise ValueError(
            f"{settings.prompts} lacks {len(missing)} of {len(found)} prompts, such as "
            f"{missing[0]!r}; `staged shapes prompts` with the same seed writes all of them"
        )
    return {prompt: text for prompt, text in found.items() if text is not None}


def digest(rewrites: Mapping[str, str]) -> str:
    """SHA-256 (hex) of what is drawn for what."""
    return hashlib.sha256(strict_json.dumps(dict(sorted(rewrites.items()))).encode()).hexdigest()
