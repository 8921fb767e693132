import math
import random

import numpy as np
import pytest

from benchmarks.coverage import CASES, coverage
from eval.statistics import (
    Observation,
    mean,
    mean_of_means,
    minus_constant,
    paired_difference,
    weighted_mean,
)


def observations(matrix, values=None):
    """One row a prompt."""
    return [
        Observation(cluster=str(prompt), value=None if value is None else float(value))
        for prompt, row in enumerate(matrix)
        for value in row
    ]


def test_one_sample_a_cluster_gives_wilsons_interval():
    # 81 of 263, Newcombe 1998 (two-sided Wilson 0.2553 to 0.3662); t with 262 degrees of freedom
    # is wider by half a percent, and G/(G-1) by a fifth.
    estimate = mean(observations([[1]] * 81 + [[0]] * 182))
    assert estimate.value == pytest.approx(81 / 263)
    assert (estimate.low, estimate.high) == pytest.approx((0.2553, 0.3662), abs=1e-3)
    assert (estimate.n, estimate.num_clusters, estimate.unscored) == (263, 263, 0)


def test_copies_of_a_sample_within_its_prompt_do_not_narrow_the_interval():
    single = mean(observations([[1], [0], [1], [1], [0], [1]]))
    fourfold = mean(observations([[v] * 4 for v in (1, 0, 1, 1, 0, 1)]))
    assert (fourfold.low, fourfold.high) == pytest.approx((single.low, single.high))
    assert fourfold.n == 4 * single.n


def test_an_interval_does_not_collapse_where_everything_is_right():
    estimate = mean(observations([[1, 1, 1, 1]] * 80))
    assert estimate.high == 1.0
    assert 0.94 < estimate.low < 0.97


def test_unscored_samples_are_counted_and_never_zero():
    estimate = mean(observations([[1, None], [1, 1], [None, None]]))
    assert (estimate.value, estimate.n, estimate.unscored) == (1.0, 3, 3)
    assert estimate.num_clusters == 2
    nothing = mean(observations([[None], [None]]))
    assert (nothing.value, nothing.low, nothing.unscored) == (None, None, 2)


def test_a_single_prompt_has_no_interval():
    estimate = mean(observations([[1, 0, 1, 1]]))
    assert (estimate.value, estimate.low, estimate.high) == (0.75, None, None)


@pytest.mark.parametrize("value", [1.5, -0.1, math.nan, math.inf])
def test_a_score_outside_its_bounds_is_refused(value):
    with pytest.raises(ValueError, match="'p'"):
        mean([Observation(cluster="p", value=value)])


def test_a_mean_without_bounds_has_students_interval():
    values = [3.0, 5.0, 4.0, 8.0]
    estimate = mean([Observation(cluster=str(v), value=v) for v in values], bounds=None)
    half = 3.182446 * np.std(values, ddof=1) / 2
    assert (estimate.low, estimate.high) == pytest.approx((5 - half, 5 + half), rel=1e-6)


def test_the_order_of_samples_does_not_reach_the_last_digit():
    rng = random.Random(3)
    samples = [Observation(cluster=str(i % 50), value=rng.random()) for i in range(400)]
    expected = mean(samples)
    rng.shuffle(samples)
    assert mean(samples) == expected


def test_the_mean_of_means_weighs_tasks_and_not_samples():
    easy = mean(observations([[1]] * 300))
    hard = mean(observations([[0]] * 10))
    assert mean_of_means([easy, hard]).value == 0.5
    assert weighted_mean([(0.9, easy), (0.1, hard)]).value == pytest.approx(0.9)
    assert mean_of_means([easy, mean(observations([[None]]))]).value is None
    with pytest.raises(ValueError, match="sum to 1"):
        weighted_mean([(0.9, easy), (0.3, hard)])


def test_a_difference_between_equal_runs_is_narrower_than_between_unrelated_ones():
    first = observations([[1, 1], [0, 0], [1, 0], [1, 1]] * 20)
    shifted = observations([[0, 1], [1, 1], [1, 1], [0, 0]] * 20)
    same, other = paired_difference(first, first), paired_difference(first, shifted)
    assert same.value == other.value == 0
    assert same.high - same.low < 0.2 * (other.high - other.low)


def test_a_difference_leaves_out_and_counts_prompts_that_one_run_lacks():
    difference = paired_difference(
        observations([[1], [0], [0], [None]]), observations([[1], [1], [None], [1]])
    )
    assert (difference.value, difference.num_clusters) == (0.5, 2)
    assert (difference.unpaired, difference.unscored) == (2, 2)


def test_a_constant_shifts_both_ends():
    estimate = mean(observations([[1], [0], [1], [1]]))
    shifted = minus_constant(estimate, 0.5)
    assert shifted.value == 0.25
    assert shifted.high - shifted.low == pytest.approx(estimate.high - estimate.low)


@pytest.mark.parametrize("name", CASES)
def test_intervals_cover_about_95_percent(name):
    assert 0.93 <= coverage(CASES[name], runs=400, seed=20) <= 0.98
