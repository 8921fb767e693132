"""The prompts of WISE: a folder of JSON files that the user fetched from its repository.

Legacy has three (`cultural_common_sense.json`, `spatio-temporal_reasoning.json`,
`natural_science.json`), verified one (`merge.json`). Both versions may lie below one folder, as
`wise_legacy` and `wise_verified`. The ids of the categories tell the versions apart, so a wrong
folder is noticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.wise.versions import NUM_PROMPTS, Version
from staged import strict_json

FILES = {
    "legacy": (
        "cultural_common_sense.json",
        "spatio-temporal_reasoning.json",
        "natural_science.json",
    ),
    "verified": ("merge.json",),
}
_MAX_BYTES = 16 * 1024 * 1024
_CATEGORY = {
    "Cultural knowledge": "culture",
    "time": "time",
    "Space": "space",
    "Biology": "biology",
    "Physical Knowledge": "physics",
    "Chemistry": "chemistry",
}
_FIELDS = {
    "Prompt": str, "Explanation": str, "Category": str, "Subcategory": str, "prompt_id": int,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WisePrompt:
    """One prompt.

    Attributes:
        prompt_id: 1 to 1000.
        text: What is drawn.
        explanation: What it means, for the judge alone.
    """

    prompt_id: int
    text: str
    explanation: str


def load_prompts(folder: Path, version: Version) -> list[WisePrompt]:
    """Read all prompts of a version, by id.

    Raises:
        ValueError: files of the other version, a prompt twice, missing, or not as it must be.
        OSError: a file cannot be read.
    """
    below = folder / f"wise_{version.name}"
    base = below if below.is_dir() else folder
    by_id: dict[int, WisePrompt] = {}
    files = FILES[version.name]
    missing = f"; fetch the {version.name} prompts of PKU-YuanGroup/WISE ({', '.join(files)})"
    for name in files:
        path = base / name
        data = strict_json.read(path, max_bytes=_MAX_BYTES, missing=missing)
        if not isinstance(data, list):
            raise ValueError(f"{path}: expected a list of prompts")
        for index, value in enumerate(data):
            prompt = _prompt(value, version, f"{path}[{index}]")
            if prompt.prompt_id in by_id:
                raise ValueError(f"{path}[{index}]: prompt_id {prompt.prompt_id} occurs twice")
            by_id[prompt.prompt_id] = prompt
    if len(by_id) != NUM_PROMPTS:
        raise ValueError(f"{base}: {len(by_id)} prompts; expected {NUM_PROMPTS}")
    return [by_id[prompt_id] for prompt_id in sorted(by_id)]


def _prompt(value: Any, version: Version, place: str) -> WisePrompt:
    record = strict_json.record(value, place, _FIELDS)
    category = version.category(record["prompt_id"])
    if _CATEGORY.get(record["Category"]) != category:
        raise ValueError(
            f"{place}: prompt_id {record['prompt_id']} is of {record['Category']!r:.40}, in the "
            f"{version.name} version it is of {category!r}; are these the files of the other one?"
        )
    return WisePrompt(
        prompt_id=record["prompt_id"], text=record["Prompt"], explanation=record["Explanation"]
    )
