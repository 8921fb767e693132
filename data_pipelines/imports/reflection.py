"""Trajectories of UMM-Reflection: draw, look, edit until it is done (its data set's columns).

A controller's text has fields in brackets: `[SCORE] 4/10`, `[ACTION] edit`, `[THINKING] …`,
`[EDIT] …`. Its first one, before there is a picture, is a thought here; the later ones say what is
wrong with the picture and how to put that right, or that it is done.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from typing import Final

from data_pipelines.imports.form import OneSample, refs, thought
from data_pipelines.rows import SourceRow
from staged.tables import ParquetFile
from staged.trajectory import (
    ImageRef,
    Inspection,
    Refinement,
    Sketch,
    Step,
    Stop,
    Trajectory,
    Verdict,
)

_FIELD: Final = re.compile(
    r"^[ \t]*\[(CURRENT_ROUND|SCORE|ACTION|THINKING|SOURCE_IMAGE|EDIT)\][ \t]*", re.M
)
_NEEDED: Final = ("user_prompt", "task", "think_list", "step_image_list", "step_need_loss")
_SHA256: Final = "step_image_sha256"
_NOTED: Final = ("uid", "trajectory_subtype")


class UmmReflection(OneSample):
    """`user_prompt`, `task` (`t2i` or `edit`), and lists with an entry for each step.

    They are `think_list`, `step_image_list`, `step_need_loss`, and `step_image_sha256` if it is
    there.
    """

    def columns(self, file: ParquetFile) -> Sequence[str]:
        """What is needed, and what is good to know."""
        file.require(_NEEDED)
        return (*_NEEDED, *(name for name in (_SHA256, *_NOTED) if name in file.names))

    def trajectory(self, row: SourceRow, part: int, dice: random.Random) -> Trajectory:
        """Draw, and inspect and refine until it is done.

        A picture is learned where `step_need_loss` says so: the last one, which was found right.
        """
        texts, pictures = row.items("think_list"), row.items("step_image_list")
        losses = row.items("step_need_loss")
        if not len(texts) == len(pictures) == len(losses):
            raise row.bad(
                "other number of steps",
                f"{len(texts)} texts, {len(pictures)} images, {len(losses)} losses",
            )
        task = row.text("task").lower()
        if task not in ("t2i", "edit"):
            raise row.bad("bad task", f"{task!r:.40} is neither t2i nor edit")
        first = int(task == "edit")
        inputs = [self._picture(row, pictures, 0)] if first else []
        steps: list[Step] = []
        done = False
        for number in range(first, len(texts)):
            if done:
                raise row.bad("bad order", f"step {number} comes after it was done")
            said = _said(row, texts[number], number)
            action = said.get("ACTION", "").strip().lower()
            if action == "done" and steps:
                steps.append(_inspection(row, said, number, "accept"))
                done = True
                continue
            if action != "edit":
                raise row.bad("bad action", f"step {number}: {action!r:.40} is not expected here")
            edit = _needed(row, said, "EDIT", number)
            if steps:
                steps.append(_inspection(row, said, number, "revise"))
                steps.append(Refinement(instruction=edit))
            else:
                steps.append(thought(_needed(row, said, "THINKING", number), edit))
            image = ImageRef(png=self._picture(row, pictures, number))
            steps.append(Sketch(image=image, loss=bool(losses[number])))
        if not done:
            raise row.bad("not finished", "its last step does not say that it is done")
        return Trajectory(
            prompt=row.text("user_prompt"),
            inputs=refs(inputs),
            task=f"reflection {task}",
            steps=(*steps, Stop()),
            provenance={name: text for name in _NOTED if (text := row.maybe_text(name))},
        )

    def _picture(self, row: SourceRow, pictures: Sequence[object], number: int) -> bytes:
        if number >= len(pictures):
            raise row.bad("missing image", f"no image at 'step_image_list.{number}'")
        image = row.image_of(pictures[number], f"step_image_list.{number}")
        expected = row.value(f"{_SHA256}.{number}")
        if expected and hashlib.sha256(image).hexdigest() != expected:
            raise row.bad("damaged image", f"step_image_list.{number}: its SHA-256 is another one")
        return image


def _said(row: SourceRow, text: object, number: int) -> dict[str, str]:
    """Read the fields of a controller's text."""
    if not isinstance(text, str) or text.count("<think>") != 1 or text.count("</think>") != 1:
        raise row.bad("bad controller", f"step {number}: no single thought in {text!r:.60}")
    pieces = _FIELD.split(text.replace("<think>", "\n").replace("</think>", "\n"))
    names = pieces[1::2]
    if pieces[0].strip() or len(set(names)) != len(names):
        raise row.bad("bad controller", f"step {number}: fields stand twice, or text before them")
    return {name: said.strip() for name, said in zip(names, pieces[2::2], strict=True)}


def _needed(row: SourceRow, said: dict[str, str], name: str, number: int) -> str:
    text = said.get(name, "")
    if not text or text.lower() == "none":
        raise row.bad("bad controller", f"step {number}: nothing at [{name}]")
    return text


def _inspection(row: SourceRow, said: dict[str, str], number: int, verdict: Verdict) -> Inspection:
    critique = _needed(row, said, "THINKING", number)
    return Inspection(target="sketch", verdict=verdict, critique=critique)
