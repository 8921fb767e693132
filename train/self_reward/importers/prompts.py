"""Prompts of DiffusionDB, and rewrites of BeautifulPrompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from staged import strict_json
from staged.tables import BadRowError, ParquetFile
from train.self_reward.asking import MAX_PROMPT_CHARS, Questions
from train.self_reward.examples import Example

_MAX_JSON_BYTES: Final = 2 * 2**30


def diffusiondb_prompts(path: Path) -> Iterator[str]:
    """Yield the different prompts of DiffusionDB's `metadata.parquet`, in order.

    Raises:
        ValueError: It is another file.
    """
    file = ParquetFile(path)
    file.require(["prompt"])
    seen: set[str] = set()
    for number, row in file.rows(["prompt"]):
        if isinstance(row, BadRowError):
            raise row
        if not isinstance(row["prompt"], str):
            raise ValueError(f"{path}: row {number + 1}, prompt: {row['prompt']!r:.60}")
        prompt = " ".join(row["prompt"].split())
        if 0 < len(prompt) <= MAX_PROMPT_CHARS and prompt not in seen:
            seen.add(prompt)
            yield prompt


def beautiful_prompt(path: Path, wording: Questions) -> Iterator[Example]:
    """Yield the rewrites of BeautifulPrompt's JSON file: `raw_prompt` becomes `prompt`.

    Raises:
        ValueError: It is another file; names the entry.
    """
    data = strict_json.read(path, max_bytes=_MAX_JSON_BYTES)
    if not isinstance(data, list):
        raise ValueError(f"{path}: expected a list of objects with raw_prompt and prompt")
    for number, entry in enumerate(data):
        known = entry if isinstance(entry, dict) else {}
        pair = [known.get(name) for name in ("raw_prompt", "prompt")]
        if not all(isinstance(text, str) and text.strip() for text in pair):
            raise ValueError(f"{path}: entry {number}: {entry!r:.80} has no raw_prompt and prompt")
        raw, rewritten = (" ".join(str(text).split()) for text in pair)
        if max(len(raw), len(rewritten)) <= MAX_PROMPT_CHARS and raw != rewritten:
            yield Example(question=wording.rewrite(raw), answer=rewritten)
