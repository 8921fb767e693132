"""The data set card: what a stranger must know before using the data."""

from collections.abc import Mapping
from typing import Any

from staged import strict_json
from staged.shards.folder import Manifest

_EXAMPLE = """```python
from staged.shards import read_shards

for sample in read_shards("."):
    print(sample.key, sample.trajectory.prompt, len(sample.trajectory.steps))
```"""


def card(manifest: Manifest) -> str:
    """Write the card as Markdown with the front matter that the Hugging Face Hub reads."""
    stats = manifest.stats
    licences = sorted(stats.get("licences", {}))
    named = f"license: other\nlicense_name: {strict_json.dumps(', '.join(licences))}\n"
    blocks = [
        f"---\npretty_name: {strict_json.dumps(manifest.title)}\n{named if licences else ''}"
        "task_categories: [text-to-image]\ntags: [webdataset, interleaved-generation]\n---",
        f"# {_line(manifest.title)}",
        f"{stats.get('trajectories', 0)} trajectories with {stats.get('images', 0)} images for "
        "text-to-image generation in stages: plan, sketch, inspect, refine.",
        "## Licence",
        _licence(licences),
        "## Contents",
        _table("task", stats.get("tasks", {})),
        _table("step", stats.get("steps", {})),
        _table("inspection", _flat(stats.get("verdicts", {}))),
        _table("sketches in a trajectory", stats.get("sketches", {})),
        _table("model", stats.get("models", {})),
        "## How it was made",
        _table("stage: outcome", _flat(manifest.acceptance)),
        _table("cost", manifest.cost),
        f"Settings fingerprints: {', '.join(manifest.fingerprints) or 'none recorded'}. "
        "The settings themselves are in `manifest.json`.",
        "## How to read it",
        "The shards are WebDataset tars. A sample is `<key>.json` and its images `<key>.0.png`, "
        "`<key>.1.png`, …; the JSON holds the prompt, the ordered steps with the images' names, "
        "the scene graph and the provenance.",
        _EXAMPLE,
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _licence(licences: list[str]) -> str:
    if not licences:
        return "The models that made these images left no licence in the samples."
    text = f"The images carry the terms of the models that made them: {_line('; '.join(licences))}."
    if any(
        "non-commercial" in name.lower().replace("noncommercial", "non-commercial")
        for name in licences
    ):
        text += " **These terms forbid commercial use.**"
    return text


def _flat(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {
        f"{outer}: {inner}": number
        for outer, numbers in counts.items()
        for inner, number in numbers.items()
    }


def _table(name: str, rows: Mapping[str, Any]) -> str:
    """Write a table; nothing for none."""
    lines = [f"| {_line(key)} | {rows[key]} |" for key in sorted(rows)]
    return "\n".join([f"| {name} | |", "|---|---|", *lines]) if rows else ""


def _line(text: str) -> str:
    """Keep text from outside on its line and in its table cell."""
    return " ".join(text.split()).replace("|", "\\|")
