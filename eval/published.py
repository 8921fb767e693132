"""Numbers that others published, with where they stand, for `staged eval compare`.

None came with an interval, and few with all that a score depends on: `variant` says what is known
of it, and a comparison names what differs. The numbers are copied as printed, so the overall score
may differ from the mean of the parts in its last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from eval.geneval.names import TASKS
from eval.results import OVERALL
from eval.wise.versions import CATEGORIES, VERSIONS
from staged.settings.kinds import nearest

PARTS = {"geneval": TASKS, "wise": CATEGORIES}
"""What a benchmark's overall score is made of."""

_STROKES = "arXiv 2604.04746 (Think in Strokes, Not Pixels)"
_BAGEL = "github.com/ByteDance-Seed/Bagel, README and eval scripts"
_WISE = "github.com/PKU-YuanGroup/WISE, leaderboard at 114dd3d"


@dataclass(frozen=True, kw_only=True)
class Published:
    """Scores of one system on one benchmark.

    Attributes:
        name: Of the system, unique within the benchmark.
        benchmark: As in a result.
        variant: What is known of what the numbers depend on, as in a result.
        scores: By part, and `overall`; parts that were not published are absent.
        source: Where they stand.
    """

    name: str
    benchmark: str
    scores: Mapping[str, float]
    source: str
    variant: Mapping[str, str] = field(default_factory=dict)


_OFFICIAL = {"mode": "official", "prompts": "short"}
# By the official weights these rows give 0.716 and 0.754.
_LEGACY = {"version": "legacy", "weighting": "bagel"}
_VERIFIED = {
    "version": "verified",
    "weighting": "official",
    "judge": VERSIONS["verified"].judge,
}


def _complete(
    benchmark: str, variant: Mapping[str, str], source: str
) -> Callable[[str, Sequence[float], float], Published]:
    """Make what makes the rows of a table that has all parts of a benchmark."""

    def row(name: str, values: Sequence[float], overall: float) -> Published:
        scores = {**dict(zip(PARTS[benchmark], values, strict=True)), OVERALL: overall}
        return Published(
            name=name, benchmark=benchmark, variant=variant, scores=scores, source=source
        )

    return row


_geneval = _complete("geneval", _OFFICIAL, f"{_STROKES}, GenEval table")
_legacy = _complete(
    "wise", _LEGACY, f"{_STROKES}, WISE table; overall is the plain mean of the categories"
)
_verified = _complete("wise", _VERIFIED, _WISE)

PUBLISHED = (
    _geneval("BAGEL-7B", (0.99, 0.95, 0.76, 0.87, 0.51, 0.56), 0.77),
    _geneval("BAGEL-7B staged", (0.99, 0.95, 0.75, 0.87, 0.72, 0.69), 0.83),
    _geneval("FLUX.1-dev", (0.98, 0.93, 0.75, 0.93, 0.68, 0.65), 0.82),
    *(
        Published(
            name=name,
            benchmark="geneval",
            variant=_OFFICIAL,
            scores={OVERALL: overall},
            source=f"{_STROKES}, table of process baselines",
        )
        for name, overall in (
            ("BAGEL-7B + GPT planner", 0.60),
            ("BAGEL-7B + GPT inspector", 0.80),
            ("PARM, test-time search", 0.67),
            ("PARM, RL and search", 0.77),
        )
    ),
    *(
        Published(
            name=f"BAGEL-7B staged, {taught}",
            benchmark="geneval",
            variant=_OFFICIAL,
            scores=scores,
            source=f"{_STROKES}, ablations; other parts are not given",
        )
        for taught, scores in (
            ("additive steps alone", {"position": 0.58, "color_attr": 0.50}),
            ("varied steps", {"position": 0.67, "color_attr": 0.62}),
            ("symbolic critiques", {"position": 0.70, "color_attr": 0.67}),
            ("no inspection", {"counting": 0.61, "position": 0.66, "color_attr": 0.62}),
            ("plans inspected", {"counting": 0.62, "position": 0.71}),
            ("images inspected", {"counting": 0.73, "position": 0.69}),
        )
    ),
    *(
        Published(
            name=f"BAGEL-7B, {prompts} prompts",
            benchmark="geneval",
            variant={"mode": "official", "prompts": prompts},
            scores={OVERALL: overall},
            source=_BAGEL,
        )
        for prompts, overall in (("short", 0.82), ("long", 0.88))
    ),
    _legacy("BAGEL-7B", (0.76, 0.69, 0.75, 0.64, 0.75, 0.58), 0.70),
    _legacy("BAGEL-7B staged", (0.74, 0.82, 0.73, 0.70, 0.76, 0.78), 0.76),
    _verified("NanoBanana-Pro", (0.8975, 0.8167, 0.9333, 0.8167, 0.8667, 0.8750), 0.8760),
    _verified("GPT-Image-1.5", (0.8900, 0.6917, 0.8833, 0.8000, 0.7583, 0.7750), 0.8250),
    _verified("BAGEL (w/ CoT)", (0.7800, 0.6333, 0.5667, 0.3750, 0.5500, 0.5083), 0.6280),
    _verified("FLUX.2-dev", (0.6650, 0.5667, 0.6583, 0.3667, 0.5250, 0.3750), 0.5650),
    _verified("QwenImage", (0.6275, 0.5250, 0.5583, 0.3417, 0.4833, 0.2500), 0.5100),
    _verified("FLUX.1-dev", (0.5225, 0.4000, 0.5333, 0.1750, 0.3750, 0.2417), 0.4160),
    _verified("Bagel", (0.4125, 0.3500, 0.3083, 0.2000, 0.4417, 0.2583), 0.3520),
    _verified("Janus-Pro-7B", (0.3700, 0.3500, 0.2833, 0.2833, 0.4000, 0.2333), 0.3340),
)


def fitting(benchmark: str, variant: Mapping[str, str]) -> list[Published]:
    """Return what was published on a benchmark, in the version of `variant` where it has any."""
    return [
        row
        for row in PUBLISHED
        if row.benchmark == benchmark
        and row.variant.get("version", variant.get("version")) == variant.get("version")
    ]


def named(name: str, benchmark: str, variant: Mapping[str, str]) -> Published:
    """Find what was published of a system on a benchmark.

    Args:
        name: Of the system.
        benchmark: As in a result.
        variant: Whose `version` the scores must be of, where the benchmark has any.

    Raises:
        ValueError: nothing was; the message names the nearest.
    """
    there = {row.name: row for row in fitting(benchmark, variant)}
    if name not in there:
        where = " ".join(filter(None, (benchmark, variant.get("version"))))
        hint = nearest(name, list(there)) or "; there is nothing"
        raise ValueError(f"nothing is published under {name!r} for {where}{hint}")
    return there[name]
