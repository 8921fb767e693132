"""Scoring images: a line for each, kept as soon as it is there, and a result made of the lines.

What lies in the file already is not scored again, if image, prompt and scorer are the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.downloads import file_sha256, sha256_of
from eval.kept import Keep, KeptLine, Key, fill
from eval.pictures import Picture
from eval.results import BenchmarkResult
from eval.rewards.scorers import RewardScore, Scorer
from staged import strict_json
from staged.jobs.rank import Rank

PART = "images"
_MAX_LINE_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ScoreFile:
    """The lines of a file.

    Attributes:
        records: One for each picture, in order: `image`, `sha256`, `prompt`, `scorer`, and
            `score`, with `reason` where that is null.
    """

    records: tuple[dict[str, Any], ...]

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
    rank: Rank | None = None,
) -> ScoreFile | None:
    """Score what is not scored yet.

    Args:
        pictures: Those without a file are unscored.
        scorer: Who scores.
        out: File of JSON lines.
        rank: Which of the images are this process's; all by default.

    Returns:
        All scores; None while those of other processes are missing.

    Raises:
        ValueError: a line of the file is not as it must be.
        BudgetError: the budget is spent; what is scored stays.
        OSError: a file cannot be read or written.
    """
    wanted = [
        {
            "image": picture.name,
            "sha256": file_sha256(picture.path),
            "prompt": picture.prompt,
            "scorer": scorer.name,
        }
        for picture in pictures
    ]

    def read(line: bytes, place: str) -> KeptLine:
        record = _parse(line, place)
        return KeptLine(key=_key(record), failed=record["score"] is None)

    def produce(missing: list[int], keep: Keep) -> None:
        for index in missing:
            if wanted[index]["sha256"] is None:
                keep(index, {**wanted[index], "score": None, "reason": "no image"})
        waiting = [index for index in missing if wanted[index]["sha256"] is not None]

        def keep_score(number: int, score: RewardScore) -> None:
            keep(waiting[number], {**wanted[waiting[number]], **_as_dict(score)})

        scorer.score([pictures[index] for index in waiting], keep_score)

    keys = [_key(record) for record in wanted]
    filled = fill(out, keys, read, produce, rank=rank or Rank(), label=scorer.kind.name)
    if filled.lines is None:
        return None
    return ScoreFile(records=tuple(_parse(line, str(out)) for line in filled.lines))


def summarise(scored: ScoreFile, scorer: Scorer) -> BenchmarkResult:
    """Make a result of scores: their mean over images, clustered by prompt.

    Args:
        scored: One or more.
        scorer: Who scored.

    Raises:
        ValueError: a score lies outside the reward's bounds.
    """
    by_prompt: defaultdict[str, list[float | None]] = defaultdict(list)
    for record in scored.records:
        by_prompt[record["prompt"]].append(record["score"])
    digest = sha256_of(strict_json.dumps(sorted(by_prompt)).encode())[:12]
    return BenchmarkResult(
        benchmark=scorer.kind.name,
        variant={"scorer": scorer.name, "prompts": f"{len(by_prompt)} prompts, sha256 {digest}"},
        samples={PART: {prompt: tuple(scores) for prompt, scores in by_prompt.items()}},
        weights={PART: 1.0},
        bounds=scorer.kind.bounds,
        provenance={
            "unscored": dict(sorted(scored.unscored.items())),
            "truncated": scored.truncated,
        },
    )


def _as_dict(score: RewardScore) -> dict[str, Any]:
    record: dict[str, Any] = {"score": score.value}
    if score.at_most is not None:
        record["at_most"] = score.at_most
    if score.truncated:
        record["truncated"] = True
    if score.value is None:
        record |= {"reason": score.reason, "detail": score.detail}
    return record


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


def _key(record: dict[str, Any]) -> Key:
    return tuple(str(record.get(name)) for name in ("image", "sha256", "prompt", "scorer"))
