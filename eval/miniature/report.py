"""From scored samples to numbers: the result file, and the table on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from eval.miniature.course import course_estimates
from eval.miniature.line import SampleScore
from eval.miniature.process import process_estimates
from eval.miniature.settings import GENEVAL_TASKS, MiniatureSettings
from eval.miniature.store import Record
from eval.results import BenchmarkResult
from eval.search.verifier import UPPER_BOUND, is_judge
from eval.search.verifiers.detector import MINIATURE
from eval.statistics import Estimate, Observation, mean, mean_of_means
from eval.tables import show
from staged.settings import fingerprint, to_dict
from staged.shapes.players.misbehaviour import SHAPES_LMM

VERSION = "1"
_share = partial(show, digits=3)


def result_of(record: Record, scored: Sequence[SampleScore]) -> BenchmarkResult:
    """Count, from what the lines of the samples say alone.

    The score of a task is the share of its pictures that are correct; the overall score is the
    mean over tasks. `also` has the exact shares, the costs of a picture, and how the steps went.
    """
    settings = record.settings
    parts: dict[str, dict[str, tuple[float | None, ...]]] = {task: {} for task in settings.tasks}
    for item in scored:
        prompts = parts[item.task]
        value = None if item.correct is None else float(item.correct)
        prompts[item.prompt] = (*prompts.get(item.prompt, ()), value)
    return BenchmarkResult(
        benchmark="miniature",
        variant={
            "version": VERSION,
            "split": settings.split,
            "tasks": "geneval" if settings.tasks == GENEVAL_TASKS else ", ".join(settings.tasks),
            "prompts": f"{settings.num_per_task} a task, seed {settings.seed}",
            "rule": "correct",
        },
        samples=parts,
        weights=dict.fromkeys(settings.tasks, 1 / len(settings.tasks)),
        run=", ".join([settings.name, *_roles(settings), *_bound(record)]),
        also=_also(scored),
        provenance={
            "settings": to_dict(settings),
            "fingerprint": fingerprint(settings),
            "flow": dict(record.flow),
            "weights_sha256": record.weights,
            **({"verifier": record.verifier} if record.verifier else {}),
            "versions": dict(record.versions),
            "reasons": dict(sorted(reasons(scored).items(), key=lambda row: (-row[1], row[0]))),
            "unfinished": dict(Counter(item.failure for item in scored if item.failure)),
        },
    )


def _bound(record: Record) -> list[str]:
    """Say where the detector that scores has chosen the pictures too."""
    # The miniature world's language model looks with the same eyes.
    by_judge = is_judge(record.verifier, MINIATURE) or record.verifier.startswith(SHAPES_LMM)
    return [UPPER_BOUND] if by_judge else []


def _roles(settings: MiniatureSettings) -> list[str]:
    """Roles that the model does not play as it was taught."""
    names = ("planner", "inspector", "sketcher")
    return [f"{n} {getattr(settings, n)}" for n in names if getattr(settings, n) != "model"]


def _also(scored: Sequence[SampleScore]) -> dict[str, Estimate]:
    exact = _by_task(scored, "exact")
    costs = {
        name: mean(_observations([i for i in scored if i.correct is not None], name), bounds=None)
        for name in ("num_flow_steps", "num_sketches", "text_tokens")
    }
    tried = [item for item in scored if item.planned is not None]
    return {
        "planned": mean(_observations(tried, "planned")),
        "exact": _mean_of_tasks(scored, "exact"),
        **{f"exact/{task}": estimate for task, estimate in exact.items()},
        **costs,
        **_searches(scored),
        **process_estimates(tried),
        **course_estimates(tried),
    }


def _searches(scored: Sequence[SampleScore]) -> dict[str, Estimate]:
    """Estimate how a search went: how many candidates, whether one was right, and was chosen."""
    searched = [item for item in scored if item.candidates]
    if not searched:
        return {}
    lucky = [item for item in searched if item.any_correct]
    return {
        "num_candidates": mean(
            [
                Observation(cluster=item.prompt, value=float(len(item.candidates)))
                for item in searched
            ],
            bounds=None,
        ),
        # By task, as the choice is scored: over all images it could be less than what was chosen.
        "search/any correct": _mean_of_tasks(searched, "any_correct"),
        "search/chosen when any is correct": mean(_observations(lucky, "correct")),
    }


def _mean_of_tasks(scored: Sequence[SampleScore], name: str) -> Estimate:
    return mean_of_means(_by_task(scored, name).values())


def _by_task(scored: Sequence[SampleScore], name: str) -> dict[str, Estimate]:
    return {
        task: mean(_observations([item for item in scored if item.task == task], name))
        for task in dict.fromkeys(item.task for item in scored)
    }


def reasons(scored: Sequence[SampleScore]) -> Counter[str]:
    """Count the wrong and the unscored pictures by kind of fault; one may have several."""
    return Counter(kind for item in scored if not item.correct for kind in item.kinds)


def _observations(scored: Sequence[SampleScore], name: str) -> list[Observation]:
    values: list[Any] = [getattr(item, name) for item in scored]
    return [
        Observation(cluster=item.prompt, value=None if value is None else float(value))
        for item, value in zip(scored, values, strict=True)
    ]


def table(result: BenchmarkResult, seconds: float) -> str:
    """Say a result in some lines."""
    lines = [f"{'':32}{'correct':>8}  {'95% interval':16}{'exact':>6}{'images':>8}{'prompts':>9}"]
    for name, estimate in [*list(result.estimates.items())[1:], ("overall", result.overall)]:
        exact = result.also["exact" if name == "overall" else f"exact/{name}"]
        lines.append(
            f"{name:32}{_share(estimate.value):>8}  {_interval(estimate):16}"
            f"{_share(exact.value):>6}{estimate.n:>8}{estimate.num_clusters:>9}"
        )
    costs = {"num_flow_steps": "flow steps", "num_sketches": "sketches", "text_tokens": "tokens"}
    said = [f"{result.also[name].value or 0:.4g} {words}" for name, words in costs.items()]
    images = max(result.overall.n, 1)
    lines.append(f"{_share(result.also['planned'].value)} of the pictures were drawn by a plan")
    lines.append(f"an image took {', '.join(said)}, {seconds / images:.2f} s")
    for name, estimate in result.also.items():
        if name.count("/") == 1 and not name.startswith("exact/"):
            share = f"{_share(estimate.value):>8}  {_interval(estimate):16}"
            lines.append(f"{name:32}{share}{'':6}{estimate.n:>8}{estimate.num_clusters:>9}")
    return "\n".join(lines)


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:.3f} to {estimate.high:.3f}"
