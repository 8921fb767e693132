"""What each image of a run got, and why: the lines that benchmarks leave beside their results.

    miniature  samples.jsonl of `staged eval miniature`
    geneval    detections, with or without verdicts
    wise       judgements

Lines are data from outside, so they are checked, against the result too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from eval.geneval.detections import read_detections
from eval.miniature.line import SampleScore, read_scores
from eval.results import BenchmarkResult
from eval.wise.judgements import ASPECTS, parse_judgement
from eval.wise.versions import VERSIONS
from staged import strict_json
from staged.lines import read_lines

MAX_LINE_BYTES = 4 * 1024 * 1024
UNSCORED = "unscored"


@dataclass(frozen=True, kw_only=True)
class ReportSample:
    """One image, as a report shows it.

    Attributes:
        name: What tells it from the others, and pairs it between runs.
        part: Of the result: task, category.
        score: In [0, 1]; None where unscored.
        prompt: Empty where the lines do not tell.
        reasons: Why it has this score, in words.
        kinds: Of those reasons; a wrong or unscored image is shown under each.
        seed: Of its noise, where it is known.
        image: Path of its file below the folder of images; empty where pictures are kept otherwise.
        course: For each picture on the way what had been spent in flow steps, and its score.
    """

    name: str
    part: str
    score: float | None
    prompt: str = ""
    reasons: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    seed: int | None = None
    image: str = ""
    course: tuple[tuple[int, float], ...] = ()

    @property
    def right(self) -> bool | None:
        """Whether it counts as right: half of the points or more; None where unscored."""
        return None if self.score is None else self.score >= 0.5


def read_samples(path: Path, result: BenchmarkResult) -> tuple[ReportSample, ...]:
    """Read the lines of a run.

    Args:
        path: File of JSON lines.
        result: What they were counted to.

    Raises:
        ValueError: the benchmark leaves no such lines, a line is not as it must be, or the lines
            do not give the result's scores: they are of another run.
        OSError: the file cannot be read.
    """
    if result.benchmark not in _READERS:
        raise ValueError(
            f"{path}: nothing is known of the lines of {result.benchmark}; there are readers for "
            f"{', '.join(_READERS)}"
        )
    samples = tuple(_READERS[result.benchmark](path, result))
    for part, estimate in result.estimates.items():
        if part not in result.samples:
            continue
        scores = [s.score for s in samples if s.part == part and s.score is not None]
        total = (estimate.value or 0.0) * estimate.n
        if len(scores) != estimate.n or abs(sum(scores) - total) > 1e-6 * max(total, 1):
            raise ValueError(
                f"{path}: {len(scores)} scored images of {part} with {sum(scores):g} points, but "
                f"the result of {result.run!r:.60} has {estimate.n} with {total:g}; these are the "
                "lines of another run"
            )
    return samples


def _miniature(path: Path, result: BenchmarkResult) -> Iterator[ReportSample]:
    return map(from_score, read_scores(path))


def from_score(item: SampleScore) -> ReportSample:
    """Show a sample of the miniature."""
    reasons = item.reasons
    if item.correct and reasons:
        # What is there beside what was asked for; said without this it would seem a fault.
        reasons = (f"not counted: {'; '.join(reasons)}",)
    return ReportSample(
        name=item.key,
        part=item.task,
        score=_as_score(item.correct),
        prompt=item.prompt,
        reasons=reasons,
        kinds=item.kinds,
        seed=item.seed,
        course=tuple((p.num_flow_steps, float(p.correct)) for p in item.pictures),
    )


_GENEVAL_KINDS = (
    (re.compile(r"no target for .*"), "nothing to stand by"),
    (re.compile(r"expected .*<[0-9]+, found [0-9]+"), "too many"),
    (re.compile(r"expected .*>=[0-9]+, found 0"), "missing"),
    (re.compile(r"expected .*>=[0-9]+, found [0-9]+"), "too few"),
    (re.compile(r"expected .*>=[0-9]+, found [0-9]+ .+; and .*"), "wrong colour"),
    (re.compile(r"expected .* target, found .*"), "wrong place"),
)


def _geneval(path: Path, result: BenchmarkResult) -> Iterator[ReportSample]:
    for number, line in enumerate(read_detections(path)):
        verdict = line.verdict()
        reasons = tuple(filter(None, verdict.reason.split("\n")))
        image = str(line.record.get("image", ""))
        yield ReportSample(
            name=image or str(number),
            part=line.prompt.tag,
            score=_as_score(verdict.correct),
            prompt=line.prompt.text,
            reasons=reasons,
            kinds=tuple(dict.fromkeys(map(_geneval_kind, reasons))),
            image=image,
        )


def _geneval_kind(reason: str) -> str:
    return next((kind for words, kind in _GENEVAL_KINDS if words.fullmatch(reason)), UNSCORED)


def _wise(path: Path, result: BenchmarkResult) -> Iterator[ReportSample]:
    version = VERSIONS[result.variant.get("version", "")]
    for content, place in read_lines(path, max_bytes=MAX_LINE_BYTES):
        judged = parse_judgement(content, version, place)
        line = strict_json.loads(content, place=place, max_bytes=MAX_LINE_BYTES)
        aspects = {name: line[name] for name in ASPECTS if name in line}
        said = [f"{name.replace('_', ' ')} {value} of 2" for name, value in aspects.items()]
        kinds = [f"no {name.replace('_', ' ')}" for name, value in aspects.items() if value == 0]
        if judged.score is None:
            said = kinds = [judged.reason]
        yield ReportSample(
            name=str(judged.prompt_id),
            part=version.category(judged.prompt_id),
            score=judged.score,
            reasons=tuple(said),
            kinds=tuple(kinds) or ("judged wrong",),
            image=str(line.get("image", f"{judged.prompt_id}.png")),
        )


_READERS: dict[str, Callable[[Path, BenchmarkResult], Iterator[ReportSample]]] = {
    "miniature": _miniature,
    "geneval": _geneval,
    "wise": _wise,
}


def _as_score(correct: bool | None) -> float | None:
    return None if correct is None else float(correct)
