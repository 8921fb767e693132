"""A judge's scores in a file of JSON lines.

A line is `{"prompt_id": 1, "consistency": 2, "realism": 1, "aesthetic_quality": 1}`, which only
the legacy judge gives, or `{"prompt_id": 1, "score": 1}` with the score of the image in [0, 1].
Other keys are kept aside. What is missing, no number, or off the scale was not understood by
whoever read the judge (the reference writes 9.9 or 999 then): it is unscored, with the reason.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.results import only_one
from eval.wise.versions import NUM_PROMPTS, Version
from staged import strict_json
from staged.lines import read_lines

MAX_LINE_BYTES = 1024 * 1024
ASPECTS = {"consistency": 0.7, "realism": 0.2, "aesthetic_quality": 0.1}
"""Weights in the image's score, each aspect from 0 to 2."""
MISSING = "no judgement"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a judge said of one image.

    Attributes:
        prompt_id: 1 to 1000.
        score: In [0, 1]; None where it was not understood.
        reason: Why there is no score.
        judge: Who said it, where the line tells.
    """

    prompt_id: int
    score: float | None
    reason: str = ""
    judge: str = ""


@dataclass(frozen=True, kw_only=True)
class Judgements:
    """All of a file.

    Attributes:
        by_id: One for every prompt of the benchmark; those that the file lacks are unscored.
    """

    by_id: dict[int, Judgement]

    @property
    def unscored(self) -> Counter[str]:
        """Count what is unscored by reason."""
        return Counter(
            judgement.reason for judgement in self.by_id.values() if judgement.score is None
        )

    @property
    def judge(self) -> str | None:
        """Return the one judge that lines name.

        Raises:
            ValueError: they name several.
        """
        return only_one((one.judge for one in self.by_id.values()), "judgements", "judges")

    @property
    def num_fractions(self) -> int:
        """Count scores other than 0 and 1, which no single verdict of the verified judge gives."""
        return sum(judgement.score not in (None, 0, 1) for judgement in self.by_id.values())


def image_score(consistency: float, realism: float, aesthetic_quality: float) -> float:
    """Return WiScore, in [0, 1], from three aspects in [0, 2]."""
    aspects = (consistency, realism, aesthetic_quality)
    weighted = zip(ASPECTS.values(), aspects, strict=True)
    # Three full marks must not make 1.0000000000000002.
    return min(math.fsum(weight * aspect for weight, aspect in weighted) / 2, 1.0)


def read_judgements(path: Path, version: Version) -> Judgements:
    """Read a file; empty lines are passed over.

    Raises:
        ValueError: a line is no JSON object, names no prompt or one a second time, or carries the
            legacy judge's aspects where `version` is another. The message begins with `FILE:LINE`.
            Or there is none.
        OSError: the file cannot be read.
    """
    by_id = {
        prompt_id: Judgement(prompt_id=prompt_id, score=None, reason=MISSING)
        for prompt_id in range(1, NUM_PROMPTS + 1)
    }
    first: dict[int, str] = {}
    for content, place in read_lines(path, max_bytes=MAX_LINE_BYTES):
        judgement = parse_judgement(content, version, place)
        prompt_id = judgement.prompt_id
        if prompt_id in first:
            raise ValueError(
                f"{place}: prompt_id {prompt_id} stands at {first[prompt_id]} already; keep one "
                "judgement of each image"
            )
        first[prompt_id] = place
        by_id[prompt_id] = judgement
    if not first:
        raise ValueError(f"{path}: no judgements; `staged eval judge-wise` makes them")
    return Judgements(by_id=by_id)


def parse_judgement(content: bytes, version: Version, place: str) -> Judgement:
    """Check one line; see `read_judgements`."""
    record = strict_json.loads_object(content, place=place, max_bytes=MAX_LINE_BYTES)
    prompt_id = record.get("prompt_id")
    if type(prompt_id) is not int or not 1 <= prompt_id <= NUM_PROMPTS:
        raise ValueError(f"{place}.prompt_id: {prompt_id!r:.40}; expected 1 to {NUM_PROMPTS}")
    given = [name for name in ASPECTS if name in record]
    if given and not version.aspects:
        raise ValueError(
            f"{place}: {given[0]!r} is judged in the legacy version; the {version.name} one has a "
            "single score of 0 or 1. Their prompts differ, so choose the version of the images"
        )
    judge = record.get("judge")
    return Judgement(
        prompt_id=prompt_id, judge=judge if type(judge) is str else "", **_scored(record, given)
    )


def _scored(record: dict[str, Any], given: list[str]) -> dict[str, Any]:
    if given:
        aspects = {name: _on_scale(record.get(name), 2) for name in ASPECTS}
        unparsed = [name for name, value in aspects.items() if value is None]
        if unparsed:
            return {"score": None, "reason": f"{unparsed[0]} unparsed"}
        return {"score": image_score(*(value or 0.0 for value in aspects.values()))}
    score = _on_scale(record.get("score"), 1)
    if score is not None:
        return {"score": score}
    # Who judged may have said why there is no score.
    reason = record.get("reason")
    return {"score": None, "reason": reason if type(reason) is str else "score unparsed"}


def _on_scale(value: Any, highest: int) -> float | None:
    if type(value) not in (int, float) or not 0 <= value <= highest:
        return None
    return float(value)
