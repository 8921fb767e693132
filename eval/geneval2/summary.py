"""Soft-TIFA's numbers from probabilities: means over questions, then over images.

The headline takes the geometric mean over the questions of an image, which one impossible answer
makes zero, and averages it over prompts; a part of the result is an atomicity. Beside it stand
the arithmetic mean and that of each skill, over all its questions. An image with an unanswered
question has no mean.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from eval.geneval2.answers import Answers, ImageAnswers
from eval.geneval2.prompts import Geneval2Prompt, Geneval2PromptFile
from eval.results import BenchmarkResult
from eval.statistics import Estimate, Observation, mean

ARITHMETIC = "arithmetic mean"
AT_MOST = "geometric mean, at most"


def geometric_mean(probabilities: Sequence[float]) -> float:
    """Return the geometric mean; 0 where one of them is 0.

    Args:
        probabilities: One or more, in [0, 1].
    """
    if min(probabilities) == 0:
        return 0.0
    # Logarithms, because a product of many would underflow; rounding must not pass 1.
    return min(math.exp(math.fsum(map(math.log, probabilities)) / len(probabilities)), 1.0)


def arithmetic_mean(probabilities: Sequence[float]) -> float:
    """Return the arithmetic mean.

    Args:
        probabilities: One or more, in [0, 1].
    """
    return math.fsum(probabilities) / len(probabilities)


def summarise(
    answers: Answers,
    prompt_file: Geneval2PromptFile,
    *,
    judge: str | None = None,
) -> BenchmarkResult:
    """Aggregate answers.

    Args:
        answers: About every image that there should be.
        prompt_file: What was asked.
        judge: The model that answered; `unknown` where nobody says.
    """
    by_atomicity = Counter(prompt.atomicity for prompt in prompt_file.prompts)
    parts = {atomicity: f"atomicity {atomicity}" for atomicity in sorted(by_atomicity)}
    samples: dict[str, dict[str, tuple[float | None, ...]]] = {n: {} for n in parts.values()}
    width = len(str(len(prompt_file.prompts) - 1))
    for prompt in prompt_file.prompts:
        # Digits in front keep the file in order, and equal prompts apart.
        key = f"{prompt.prompt_id:0{width}} {prompt.text}"
        samples[parts[prompt.atomicity]][key] = tuple(
            _mean(image.probabilities, geometric_mean)
            for image in answers.by_prompt[prompt.prompt_id]
        )
    return BenchmarkResult(
        benchmark="geneval2",
        variant={
            "prompts": prompt_file.variant,
            "judge": judge or "unknown",
            "score": "soft-tifa, geometric mean",
        },
        samples=samples,
        weights={
            parts[atomicity]: number / by_atomicity.total()
            for atomicity, number in by_atomicity.items()
        },
        also=_also(answers, prompt_file),
        provenance={"unscored": dict(sorted(answers.unscored.items()))},
    )


def _also(answers: Answers, prompt_file: Geneval2PromptFile) -> dict[str, Estimate]:
    images = [
        (prompt, image)
        for prompt in prompt_file.prompts
        for image in answers.by_prompt[prompt.prompt_id]
    ]
    also = {
        ARITHMETIC: mean(
            Observation(cluster=str(p.prompt_id), value=_mean(i.probabilities, arithmetic_mean))
            for p, i in images
        )
    }
    if any(bound is not None for _, image in images for bound in image.at_most):
        also[AT_MOST] = mean(
            Observation(cluster=str(p.prompt_id), value=_mean(_upper(i), geometric_mean))
            for p, i in images
        )
    skills = dict.fromkeys(q.skill for p in prompt_file.prompts for q in p.questions)
    return also | {f"skill {skill}": mean(_of_skill(skill, images)) for skill in sorted(skills)}


def _of_skill(
    skill: str, images: Iterable[tuple[Geneval2Prompt, ImageAnswers]]
) -> list[Observation]:
    return [
        Observation(cluster=str(prompt.prompt_id), value=probability)
        for prompt, image in images
        for question, probability in zip(prompt.questions, image.probabilities, strict=True)
        if question.skill == skill
    ]


def _upper(image: ImageAnswers) -> tuple[float | None, ...]:
    """Return what each probability can be at most: itself where every token was seen."""
    return tuple(
        probability if bound is None or probability is None else max(bound, probability)
        for probability, bound in zip(image.probabilities, image.at_most, strict=True)
    )


def _mean(
    probabilities: Sequence[float | None], average: Callable[[Sequence[float]], float]
) -> float | None:
    known = [p for p in probabilities if p is not None]
    return average(known) if len(known) == len(probabilities) else None
