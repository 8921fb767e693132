"""The model card of a shipped miniature, made of the record that lies beside its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from staged import strict_json
from staged.shapes.miniature import CHECKPOINTS

RECORD, CARD = "record.json", "README.md"
"""What a shipped checkpoint says of itself, for programs and for people."""
MAX_RECORD_BYTES = 1 << 22

_ABOUT = {
    "base": "It draws a prompt at once, makes the edits that it is asked for, and describes "
    "pictures. It was never taught to plan, to inspect or to refine.",
    "staged": "It was fine-tuned from `miniature:base` to plan the next change, sketch it, inspect "
    "plan and sketch, and refine what is wrong, until it stops.",
}
_PAGE = "[docs/miniature.md](../../../../docs/miniature.md)"
_MODES = {"base": " --mode one-shot", "staged": ""}
_RECORD = {"commands": list, "date": str, "torch": str, "data": str, "note": str, "results": list}

_RESULT = {
    "benchmark": str,
    "run": str,
    "variant": dict,
    "parts": list,
    "estimates": dict,
    "interval_method": str,
}


def read_record(name: str) -> dict[str, Any]:
    """Read the record of a shipped miniature.

    Args:
        name: `base` or `staged`.

    Raises:
        ValueError: it is no such record.
        OSError: it cannot be read.
    """
    path = CHECKPOINTS / name / RECORD
    record = strict_json.read(path, max_bytes=MAX_RECORD_BYTES)
    return strict_json.record(record, str(path), _RECORD, others=True)


def read_result(path: Path) -> dict[str, Any]:
    """Read the `result.json` of an evaluation, which a record keeps.

    Raises:
        ValueError: it is none that `staged eval` writes.
        OSError: it cannot be read.
    """
    result = strict_json.read(path, max_bytes=MAX_RECORD_BYTES)
    return strict_json.record(result, str(path), _RESULT, others=True)


def card(name: str, record: Mapping[str, Any]) -> str:
    """Write a card, with the head that model hubs read.

    Args:
        name: `base` or `staged`.
        record: Of the checkpoint; its results are those of `staged eval`.
    """
    parts = [
        "---\nlicense: apache-2.0\nlibrary_name: staged\npipeline_tag: text-to-image\n"
        "tags: [bagel, miniature, synthetic]\n---",
        f"# miniature:{name}",
        "BAGEL at some million parameters, for the miniature world of `staged`: coloured shapes on "
        f"a canvas of 48 x 48 pixels. {_ABOUT[name]}",
        f'```sh\nstaged generate "a photo of a red circle above a blue star" '
        f"--checkpoint miniature:{name}{_MODES[name]}\n```",
        "## Meant for",
        "Trying the whole method on a laptop, and measuring it exactly: every picture is scored "
        "from its pixels. It says nothing about the quality of photographs. Prompts in other "
        f"sentences than those of {_PAGE}, or of anything but these shapes, are refused.",
        "## How well it does",
        *_results(name, record["results"]),
        "## How it was made",
        "From scenes that a program draws; no image, text or label of a person is in its data. "
        f"On {record['date']}, torch {record['torch']}, data set {record['data'][:12]}:",
        "```sh\n" + "\n".join(record["commands"]) + "\n```",
        record["note"],
        f"All settings and every figure are in `{RECORD}`; {_PAGE} says why they are as they are.",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _results(name: str, results: list[Mapping[str, Any]]) -> Iterator[str]:
    if not results:
        yield "No evaluation was recorded."
    for result in results:
        run = re.sub(r"^\S+", f"miniature:{name}", str(result["run"]))  # not where it lay then
        facts = ", ".join(f"{k} {v}" for k, v in result["variant"].items() if k != "tasks")
        yield f"`staged eval`: {result['benchmark']}, {run}; {facts}. {result['interval_method']}."
        rows = ["| part | score | 95% interval | n |", "|---|---|---|---|"]
        for part in (*result["parts"], "overall"):
            found = result["estimates"][part]
            ends = [_share(found[end]) for end in ("low", "high")]
            value, label = _share(found["value"]), part.replace("_", " ")
            rows.append(f"| {label} | {value} | {ends[0]} to {ends[1]} | {found['n']} |")
        yield "\n".join(rows)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
