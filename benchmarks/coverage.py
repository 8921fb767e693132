"""How often the 95% intervals of `staged eval` hold the truth: a simulation where it is known.

    python benchmarks/coverage.py --runs 1000

Every prompt has its own difficulty, so images of one prompt are alike and images of different
prompts are not, as in a benchmark. Prints one JSON line a case; the standard error of a share of
95% is 0.7% over 1,000 runs. Exit code 0, or 1 where a share lies outside 93% to 98%.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # from a bare checkout
from eval.statistics import Estimate, Observation, mean, mean_of_means, paired_difference

NUM_IMAGES = 4
GAIN = 0.1
"""Of the second run's probability of success, as a share of what the first lacks."""
TASKS = {80: (9.0, 0.3), 99: (4.0, 1.0), 100: (0.6, 0.6)}
"""Of an overall score: number of prompts to the beta distribution of their difficulty."""
LEAST, MOST = 0.93, 0.98

Case = Callable[[np.random.Generator], bool]
"""Simulates one evaluation; returns whether its interval holds the truth."""


def observations(values: NDArray[Any]) -> list[Observation]:
    """Turn (prompts, images) scores into samples."""
    return [
        Observation(cluster=str(prompt), value=float(value))
        for prompt, row in enumerate(values)
        for value in row
    ]


def covers(estimate: Estimate, truth: float) -> bool:
    """Say whether an interval holds the truth."""
    assert estimate.low is not None and estimate.high is not None
    return estimate.low <= truth <= estimate.high


def task(ease: tuple[float, float], num_prompts: int) -> Case:
    """Accuracy of a task whose prompts' probabilities of success have a beta distribution."""

    def simulate(rng: np.random.Generator) -> bool:
        probability = rng.beta(*ease, size=(num_prompts, 1))
        drawn = rng.random((num_prompts, NUM_IMAGES)) < probability
        return covers(mean(observations(drawn)), ease[0] / sum(ease))

    return simulate


def reward(num_prompts: int) -> Case:
    """Mean of a score without bounds that prompts and images vary alike."""

    def simulate(rng: np.random.Generator) -> bool:
        of_prompts = rng.normal(20, 2, (num_prompts, 1))
        scores = of_prompts + rng.normal(0, 2, (num_prompts, NUM_IMAGES))
        return covers(mean(observations(scores), bounds=None), 20)

    return simulate


def overall(rng: np.random.Generator) -> bool:
    """Mean of three tasks of unlike difficulty."""
    parts = []
    for num_prompts, ease in TASKS.items():
        probability = rng.beta(*ease, size=(num_prompts, 1))
        parts.append(mean(observations(rng.random((num_prompts, NUM_IMAGES)) < probability)))
    return covers(mean_of_means(parts), _truth())


def difference(rng: np.random.Generator) -> bool:
    """Paired difference of two runs, the second a little better on every prompt."""
    parts = []
    for num_prompts, ease in TASKS.items():
        probability = rng.beta(*ease, size=(num_prompts, 1))
        better = probability + GAIN * (1 - probability)
        first, second = (
            observations(rng.random((num_prompts, NUM_IMAGES)) < p) for p in (probability, better)
        )
        parts.append(paired_difference(first, second))
    return covers(mean_of_means(parts), GAIN * (1 - _truth()))


def _truth() -> float:
    return sum(a / (a + b) for a, b in TASKS.values()) / len(TASKS)


CASES: dict[str, Case] = {
    "80 prompts, 60% right": task((0.9, 0.6), 80),
    "100 prompts, 98% right": task((8.0, 0.2), 100),
    "30 prompts, 50% right": task((1.0, 1.0), 30),
    "50 prompts, a reward": reward(50),
    "overall of three tasks": overall,
    "paired difference of overall": difference,
}


def coverage(case: Case, *, runs: int, seed: int) -> float:
    """Return the share of simulated evaluations whose interval holds the truth."""
    rng = np.random.default_rng(seed)
    return sum(case(rng) for _ in range(runs)) / runs


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate all cases; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=1000, help="a case (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20, help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    shares = []
    for name, case in CASES.items():
        shares.append(coverage(case, runs=arguments.runs, seed=arguments.seed))
        line = {"case": name, "runs": arguments.runs, "seed": arguments.seed, "covered": shares[-1]}
        print(json.dumps(line), flush=True)
    return int(not all(LEAST <= share <= MOST for share in shares))


if __name__ == "__main__":
    sys.exit(main())
