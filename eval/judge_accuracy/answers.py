"""What a judge said of pairs, as `staged self-reward prefer` writes it, and how often it is right.

    {"prompt": …, "images": [A, B], "preferred": 0, "scores": {"alignment": [4.5, 3.0], …}}

It agrees where its scores, summed over the rubrics, are higher for the preferred picture. Where
they are equal it has no preference, and a coin would be right in half of the cases. Where a rubric
has no score the pair is unscored.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.downloads import sha256_of
from eval.results import BenchmarkResult, Samples, versions
from eval.statistics import Observation, mean
from staged import strict_json
from staged.lines import MAX_LINE_BYTES
from staged.picture_pairs import PAIR_FIELDS, read_pair

BENCHMARK = "judge-accuracy"
PART = "pairs"
EQUAL = 0.5
_CLOSE = 1e-9
"""Means of the same scores in another order differ by less."""


@dataclass(frozen=True, kw_only=True)
class JudgedPair:
    """What was said of a pair.

    Attributes:
        prompt: What both pictures were drawn for.
        images: Their names.
        preferred: Place of the better one.
        scores: Rubric to the scores of both.
    """

    prompt: str
    images: tuple[str, str]
    preferred: int
    scores: Mapping[str, tuple[float, float]]

    def agrees(self, rubrics: tuple[str, ...]) -> float | None:
        """Whether the sum over some rubrics prefers the same one: 1, 0, or `EQUAL`.

        None where one of them has no score.
        """
        if any(rubric not in self.scores for rubric in rubrics):
            return None
        sums = [math.fsum(self.scores[rubric][place] for rubric in rubrics) for place in (0, 1)]
        better = sums[self.preferred] - sums[1 - self.preferred]
        return EQUAL if abs(better) <= _CLOSE else float(better > 0)


def read_judged(path: Path) -> list[JudgedPair]:
    """Read a file of judged pairs.

    Raises:
        ValueError: A line is anything else, or there is none; names the line.
        OSError: The file cannot be read.
    """
    found = list(_read(path))
    if not found:
        raise ValueError(f"{path} holds no judged pairs")
    return found


def result_of(pairs: list[JudgedPair], *, run: str) -> BenchmarkResult:
    """Make a result: the share of pairs in which all rubrics together agree, clustered by prompt.

    Args:
        pairs: One or more.
        run: Name of the judge, for tables.
    """
    rubrics = tuple(sorted({rubric for pair in pairs for rubric in pair.scores}))
    if not rubrics:
        raise ValueError(f"{run}: not one pair has a score; the judge gave no valid answer")
    scored: defaultdict[str, list[float | None]] = defaultdict(list)
    for pair in pairs:
        scored[pair.prompt].append(pair.agrees(rubrics))
    samples: Samples = {PART: {prompt: tuple(values) for prompt, values in scored.items()}}
    known = sorted((pair.prompt, *pair.images, pair.preferred) for pair in pairs)
    digest = sha256_of(strict_json.dumps(known).encode())[:12]
    return BenchmarkResult(
        benchmark=BENCHMARK,
        variant={"pairs": f"{len(pairs)} pairs, sha256 {digest}", "rubrics": ", ".join(rubrics)},
        run=run,
        samples=samples,
        weights={PART: 1.0},
        also={
            rubric: mean(
                Observation(cluster=pair.prompt, value=pair.agrees((rubric,))) for pair in pairs
            )
            for rubric in rubrics
        },
        provenance={"versions": versions()},
    )


def _read(path: Path) -> Iterator[JudgedPair]:
    wanted = {**PAIR_FIELDS, "scores": dict}
    for record, place in strict_json.read_records(path, wanted, max_bytes=MAX_LINE_BYTES):
        names, preferred = read_pair(record, place)
        yield JudgedPair(
            prompt=record["prompt"],
            images=names,
            preferred=preferred,
            scores={
                str(rubric): _scores(values, f"{place}: scores.{rubric:.40}")
                for rubric, values in record["scores"].items()
            },
        )


def _scores(values: Any, place: str) -> tuple[float, float]:
    numbers = values if isinstance(values, list) else []
    good = [v for v in numbers if type(v) in (int, float) and math.isfinite(v)]
    if len(good) != 2 or len(numbers) != 2:
        raise ValueError(f"{place}: {values!r:.60}; expected two numbers")
    return float(good[0]), float(good[1])
