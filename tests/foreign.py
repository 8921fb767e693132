"""Tiny data sets in the published schemas of others."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tiny import picture

from staged.images import encode_png


def png(seed: int) -> bytes:
    return encode_png(picture(seed))


def hub_image(seed: int) -> dict[str, Any]:
    """As `datasets` writes the `Image` feature."""
    return {"bytes": png(seed), "path": f"{seed}.png"}


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, **options)
    return path


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def bagel_t2i(seed: int) -> dict[str, Any]:
    captions = {"short": f"a star {seed}", "long": f"a red star {seed} on grey"}
    return {"image": png(seed), "captions": json.dumps(captions)}


def bagel_edit(seed: int) -> dict[str, Any]:
    """Two edits in a row."""
    return {
        "image_list": [png(seed), png(seed + 1), png(seed + 2)],
        "instruction_list": [
            [f"make it blue {seed}", f"blue, please {seed}"],
            [f"add a star {seed}"],
        ],
    }


def llava(image: str) -> dict[str, Any]:
    return {
        "id": "000000033471",
        "image": image,
        "conversations": [
            {"from": "human", "value": "<image>\nWhat colour is it?"},
            {"from": "gpt", "value": "It is red."},
            {"from": "human", "value": "And its shape?"},
            {"from": "gpt", "value": "A star."},
        ],
    }


def zebra(seed: int) -> dict[str, Any]:
    return {
        "Question": "Where is it? <image_start>[problem_image_1]<image_end>",
        "Text Reasoning Trace": (
            "THOUGHT 0: I look closer.\nTHOUGHT 1: So I draw it.\n"
            "<image_start>[reasoning_image_1]<image_end>\nTHOUGHT 2: I mark it.\n"
            "<image_start>[reasoning_image_2]<image_end>\nTHOUGHT 3: It is on the left."
        ),
        "Final Answer": "left",
        "problem_image_1": hub_image(seed),
        "problem_image_2": None,
        "reasoning_image_1": hub_image(seed + 1),
        "reasoning_image_2": hub_image(seed + 2),
    }


def thinkmorph(seed: int) -> dict[str, Any]:
    return {
        "pid": str(seed),
        "question": "Which piece fits?",
        "answer": "B",
        "problem_image_0": hub_image(seed),
        "resoning_thought_0": "<think>I put them together.</think>",
        "reasoning_image_0": hub_image(seed + 1),
        "resoning_thought_1": "The second one continues the line.",
        "task": "jigsaw",
        "full_text_only_thought": "unused",
    }


def controller(number: int, action: str, thinking: str, edit: str = "None") -> str:
    return (
        f"<think>\n[CURRENT_ROUND] Round#{number}\n[SCORE] 4/10\n[ACTION] {action}\n"
        f"[THINKING] {thinking}\n[SOURCE_IMAGE] None\n[EDIT] {edit}\n</think>"
    )


def reflection(seed: int, task: str = "t2i") -> dict[str, Any]:
    """Drawn, put right once, and done."""
    texts = [
        controller(0, "edit", "Nothing is there yet.", "a red star on grey"),
        controller(1, "edit", "The star is blue.\nIt must be red.", "make the star red"),
        controller(2, "done", "The star is red."),
    ]
    pictures = [png(seed + 1), png(seed + 2), None]
    losses = [False, True, False]
    if task == "edit":
        texts, pictures, losses = ["", *texts], [png(seed), *pictures], [False, *losses]
    return {
        "uid": f"u{seed}",
        "task": task,
        "trajectory_subtype": "repair",
        "user_prompt": "a red star",
        "system_prompt": "Inspect.",
        "think_list": texts,
        "step_image_list": pictures,
        "step_need_loss": losses,
        "n_steps": len(texts),
    }
