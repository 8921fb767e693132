"""Scoring images: a line for each, kept as soon as it is there, and a result made of the lines.

What lies in the file already is not scored again, if image, prompt and scorer are the same.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.downloads import sha256_of
from eval.kept import Keep, fill, lines_there
from eval.pictures import Picture
from eval.results import Result, versions
from eval.rewards.scorers import Score, Scorer
from staged import strict_json

PART = "images"
_MAX_LINE_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The lines of a file.

    Attributes:
        records: One for each picture, in order: `image`, `sha256`, `prompt`, `scorer`, and
            `score`, with `reason` where that is null.
        new: How many were scored now.
    """

    records: tuple[dict[str, Any], ...]
    new: int

    @property
    def unscored(self) -> Counter[str]:
        """Count what is unscored by reason."""
        return Counter(
            record.get("reason") or "no reason"
            for record in self.records
            if record["score"] is None
        )

    @property
    def truncated(self) -> int:
        """Count images of whose prompt only the beginning was read."""
        return sum(bool(record.get("truncated")) for record in self.records)


def score_pictures(
    pictures: Sequence[Picture],
    scorer: Scorer,
    out: Path,
    *,
    on_image: Callable[[], None] | None = None,
) -> Scored:
    """Score what is not scored yet.

    Args:
        pictures: Those without a file are unscored.
        scorer: Who scores.
        out: File of JSON lines.
        on_image: Called after each image that was not there.

    Raises:
        ValueError: a line of the file is not as it must be.
        BudgetSpent: the budget is spent; what is scored stays.
        OSError: a file cannot be read or written.
    """
    wanted = [
        {
            "image": picture.name,
            "sha256": _sha256(picture.path),
            "prompt": picture.prompt,
            "scorer": scorer.name,
        }
        for picture in pictures
    ]
    finished = _finished(out)
    keys = [_key(record) for record in wanted]
    there = {index: finished[key] for index, key in enumerate(keys) if key in finished}

    def produce(keep: Keep) -> None:
        waiting = []
        for index, record in enumerate(wanted):
            if record["sha256"] is None:
                keep(index, {**record, "score": None, "reason": "no image"})
            elif index not in there:
                waiting.append(index)

        def keep_score(number: int, score: Score) -> None:
            keep(waiting[number], {**wanted[waiting[number]], **_as_dict(score)})
            if on_image:
                on_image()

        scorer.score([pictures[index] for index in waiting], keep_score)

    lines = fill(out, there, produce)
    records = tuple(_parse(line, str(out)) for line in lines)
    return Scored(records=records, new=len(records) - len(there))


def summarise(scored: Scored, scorer: Scorer, *, run: str = "") -> Result:
    """Make a result of scores: their mean over images, clustered by prompt.

    Args:
        scored: One or more.
        scorer: Who scored.
        run: Name for tables.

    Raises:
        ValueError: a score lies outside the reward's bounds.
    """
    by_prompt: defaultdict[str, list[float | None]] = defaultdict(list)
    for record in scored.records:
        by_prompt[record["prompt"]].append(record["score"])
    digest = sha256_of(strict_json.dumps(sorted(by_prompt)).encode())[:12]
    return Result(
        benchmark=scorer.kind.name,
        variant={"scorer": scorer.name, "prompts": f"{len(by_prompt)} prompts, sha256 {digest}"},
        run=run,
        samples={PART: {prompt: tuple(scores) for prompt, scores in by_prompt.items()}},
        weights={PART: 1.0},
        bounds=scorer.kind.bounds,
        provenance={
            "versions": versions(),
            "unscored": dict(sorted(scored.unscored.items())),
            "truncated": scored.truncated,
        },
    )


def _as_dict(score: Score) -> dict[str, Any]:
    record: dict[str, Any] = {"score": score.value}
    if score.at_most is not None:
        record["at_most"] = score.at_most
    if score.truncated:
        record["truncated"] = True
    if score.value is None:
        record |= {"reason": score.reason, "detail": score.detail}
    return record


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _finished(out: Path) -> dict[tuple[str, ...], bytes]:
    """Return lines with a score; what failed is tried again."""
    parsed = ((_parse(line, place), line) for line, place in lines_there(out))
    return {_key(record): line for record, line in parsed if record["score"] is not None}


def _parse(line: bytes, place: str) -> dict[str, Any]:
    required = {"image": str, "prompt": str, "scorer": str}
    optional = {"sha256": str, "score": float, "at_most": float, "truncated": bool, "reason": str,
                "detail": str}  # fmt: skip
    record = strict_json.record(
        strict_json.loads(line, place=place, max_bytes=_MAX_LINE_BYTES), place, required, optional
    )
    if "score" not in record:
        raise ValueError(f"{place}: missing key 'score'")
    return record


def _key(record: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(record.get(name)) for name in ("image", "sha256", "prompt", "scorer"))
