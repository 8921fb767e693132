"""GenEval's numbers from verdicts: accuracy of each task, their mean, prompts right at least once.

A prompt's images are one cluster. Where prompts are given beside the verdicts, images that never
arrived are unscored; without them nothing can know what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from eval.geneval.names import TASKS
from eval.geneval.prompt import GenEvalPrompt
from eval.geneval.scoring import ImageScore
from eval.results import BenchmarkResult
from eval.statistics import Estimate, Observation, mean

IMAGES_PER_PROMPT = 4
ANY_CORRECT = "prompts with any correct"
ALL_IMAGES = "images"


def summarise(
    scored: Iterable[tuple[GenEvalPrompt, ImageScore]],
    *,
    variant: Mapping[str, str],
    expected: Sequence[GenEvalPrompt] = (),
    images_per_prompt: int = IMAGES_PER_PROMPT,
) -> BenchmarkResult:
    """Aggregate verdicts.

    Args:
        scored: A prompt and a verdict for each image, in any order.
        variant: What the numbers depend on: prompts, detector, colour classifier.
        expected: Prompts that should have been drawn.
        images_per_prompt: How often, each.

    Returns:
        A result over the tasks that occur, with equal weights. It is GenEval's overall score
        only if these are all six: see `is_complete`.

    Raises:
        ValueError: no image at all; a prompt that `expected` lacks; more than
            `images_per_prompt` images of one that it has.
    """
    samples: dict[str, dict[str, list[float | None]]] = {task: {} for task in TASKS}
    for prompt in expected:
        samples[prompt.tag][prompt.text] = []
    for prompt, verdict in scored:
        by_prompt = samples[prompt.tag]
        if expected and prompt.text not in by_prompt:
            raise ValueError(
                f"{prompt.tag}: {prompt.text!r:.80} is not in the prompt file; score with the "
                "file that the images were drawn from"
            )
        by_prompt.setdefault(prompt.text, []).append(
            None if verdict.correct is None else float(verdict.correct)
        )
    if expected:
        for by_prompt in samples.values():
            for text, values in by_prompt.items():
                if len(values) > images_per_prompt:
                    raise ValueError(
                        f"{text!r:.80}: {len(values)} images; expected {images_per_prompt}"
                    )
                values.extend([None] * (images_per_prompt - len(values)))
    present = {task: by_prompt for task, by_prompt in samples.items() if by_prompt}
    if not present:
        raise ValueError("no image to score")
    return BenchmarkResult(
        benchmark="geneval",
        variant={"mode": "official", **variant},
        samples={
            # Which of a prompt's images came first says nothing, and files may be shuffled.
            task: {text: tuple(sorted(values, key=_rank)) for text, values in by_prompt.items()}
            for task, by_prompt in present.items()
        },
        weights=dict.fromkeys(present, 1 / len(present)),
        also={ANY_CORRECT: any_correct(present), ALL_IMAGES: all_images(present)},
    )


def is_complete(result: BenchmarkResult) -> bool:
    """Say whether all six tasks are there, so that the overall score is GenEval's."""
    return set(result.samples) == set(TASKS)


def any_correct(samples: Mapping[str, Mapping[str, Sequence[float | None]]]) -> Estimate:
    """Estimate the share of prompts with a correct image among all of theirs.

    A prompt without one, but with unscored images, is unscored.
    """
    return mean(
        Observation(cluster=f"{task}: {text}", value=_any(values))
        for task, by_prompt in samples.items()
        for text, values in by_prompt.items()
    )


def all_images(samples: Mapping[str, Mapping[str, Sequence[float | None]]]) -> Estimate:
    """Estimate the accuracy over images, whatever their task."""
    return mean(
        Observation(cluster=f"{task}: {text}", value=value)
        for task, by_prompt in samples.items()
        for text, values in by_prompt.items()
        for value in values
    )


def _any(values: Sequence[float | None]) -> float | None:
    if any(values):
        return 1.0
    return None if None in values else 0.0


def _rank(value: float | None) -> float:
    return 2.0 if value is None else value
