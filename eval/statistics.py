"""Means, differences and their 95% intervals, for samples that come in clusters.

Images of one prompt resemble one another, so a prompt is a cluster and its images are never
counted as independent. A mean is taken over scored samples; its standard error is the
cluster-robust one (sums of residuals by cluster, G/(G-1)). Intervals:

- of a mean between bounds: Wilson's, with the effective sample size p(1-p)/se² in place of n and
  Student's t with G-1 degrees of freedom in place of the normal (Korn and Graubard 1998; Dean and
  Pagano 2015). It does not collapse where everything is right, as the plain normal one does;
- of a mean without bounds: Student's t;
- of a weighted mean of means: MOVER, which adds squared half widths (Zou and Donner 2008);
- of a paired difference: MOVER with the correlation of the clusters' residuals (Newcombe 1998).

All are closed formulas: no seed, no order of samples, decides a digit. An unscored sample counts
as unscored, never as zero, and travels with every number made of it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from scipy.special import stdtrit

METHOD = "95%; prompt-clustered Wilson with Student's t, combined by MOVER"
UNIT = (0.0, 1.0)
_TAIL = 0.975


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One sample's score.

    Attributes:
        cluster: What it shares with related samples: its prompt.
        value: The score; None where there is none.
    """

    cluster: str
    value: float | None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its interval and with what it rests on.

    Attributes:
        value: None where nothing was scored.
        low: Lower end of the 95% interval; None with fewer than two clusters.
        high: Upper end.
        n: Scored samples.
        num_clusters: Clusters with a scored sample.
        unscored: Samples that should have a score and have none.
        unpaired: Clusters that a difference leaves out because only one side has a score.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    num_clusters: int
    unscored: int
    unpaired: int = 0

    def as_dict(self) -> dict[str, float | int | None]:
        """Return plain JSON values; `unpaired` only where it says something."""
        return {name: n for name, n in vars(self).items() if n or name != "unpaired"}


def mean(
    observations: Iterable[Observation], *, bounds: tuple[float, float] | None = UNIT
) -> Estimate:
    """Average scored samples.

    Args:
        observations: Samples in any order.
        bounds: Least and greatest value that a score can have; None where there is none.

    Raises:
        ValueError: a score is not finite or lies outside `bounds`.
    """
    values = _by_cluster(observations, bounds)
    return _Clusters(values.scored, bounds).estimate(values.unscored)


def weighted_mean(parts: Sequence[tuple[float, Estimate]]) -> Estimate:
    """Combine independent estimates, such as tasks that share no prompt.

    Args:
        parts: Weight and estimate of each; for a difference of weighted means, differences.

    Returns:
        A number without a value where any part has none: a missing task is not skipped.

    Raises:
        ValueError: no parts, or weights that are negative or do not sum to 1.
    """
    weights = [weight for weight, _ in parts]
    if not parts or min(weights) < 0 or not math.isclose(sum(weights), 1, abs_tol=1e-9):
        raise ValueError(f"weights {weights}; expected numbers from 0 that sum to 1")
    value = _weighted((weight, part.value) for weight, part in parts)
    below = _half_width((weight, part.value, part.low) for weight, part in parts)
    above = _half_width((weight, part.value, part.high) for weight, part in parts)
    return Estimate(
        value=value,
        low=None if value is None or below is None else value - below,
        high=None if value is None or above is None else value + above,
        n=sum(part.n for _, part in parts),
        num_clusters=sum(part.num_clusters for _, part in parts),
        unscored=sum(part.unscored for _, part in parts),
        unpaired=sum(part.unpaired for _, part in parts),
    )


def mean_of_means(parts: Iterable[Estimate]) -> Estimate:
    """Average independent estimates with equal weights.

    Raises:
        ValueError: no parts.
    """
    estimates = list(parts)
    return weighted_mean([(1 / len(estimates), part) for part in estimates])


def paired_difference(
    first: Iterable[Observation],
    second: Iterable[Observation],
    *,
    bounds: tuple[float, float] | None = UNIT,
) -> Estimate:
    """Estimate how much higher `second` is, over the clusters that both have scores for.

    Returns:
        The difference of the two means; `n` counts the samples of both sides.

    Raises:
        ValueError: a score is not finite or lies outside `bounds`.
    """
    sides = _by_cluster(first, bounds), _by_cluster(second, bounds)
    shared = sorted(sides[0].scored.keys() & sides[1].scored.keys())
    a, b = (_Clusters({key: side.scored[key] for key in shared}, bounds) for side in sides)
    ends_a, ends_b = a.estimate(0), b.estimate(0)
    value = low = high = None
    if ends_a.value is not None and ends_b.value is not None:
        value = ends_b.value - ends_a.value
    if value is not None and ends_a.low is not None and ends_b.low is not None:
        assert ends_a.value is not None and ends_b.value is not None
        assert ends_a.high is not None and ends_b.high is not None
        r = a.correlation(b)
        down = ends_b.value - ends_b.low, ends_a.high - ends_a.value
        up = ends_b.high - ends_b.value, ends_a.value - ends_a.low
        low = value - math.sqrt(max(down[0] ** 2 + down[1] ** 2 - 2 * r * down[0] * down[1], 0))
        high = value + math.sqrt(max(up[0] ** 2 + up[1] ** 2 - 2 * r * up[0] * up[1], 0))
    return Estimate(
        value=value,
        low=low,
        high=high,
        n=a.num_samples + b.num_samples,
        num_clusters=len(shared),
        unscored=sides[0].unscored + sides[1].unscored,
        unpaired=len(sides[0].scored.keys() ^ sides[1].scored.keys()),
    )


def minus_constant(estimate: Estimate, constant: float) -> Estimate:
    """Shift an estimate, for a comparison with a number that came without an interval."""
    ends = (estimate.value, estimate.low, estimate.high)
    value, low, high = (None if end is None else end - constant for end in ends)
    return replace(estimate, value=value, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class _Sorted:
    scored: dict[str, list[float]]
    unscored: int


class _Clusters:
    """Samples by cluster, and the cluster-robust moments of their mean.

    Args:
        scored: Scores of each cluster.
        bounds: Least and greatest possible score.
    """

    def __init__(
        self, scored: Mapping[str, Sequence[float]], bounds: tuple[float, float] | None
    ) -> None:
        self.bounds = bounds
        self.num_clusters = len(scored)
        self.num_samples = sum(map(len, scored.values()))
        # fsum, so that the order of samples does not reach the last digit.
        total = math.fsum(value for values in scored.values() for value in values)
        self.mean = total / self.num_samples if self.num_samples else math.nan
        self.residuals = {
            key: math.fsum(value - self.mean for value in values) for key, values in scored.items()
        }

    def covariance(self, other: _Clusters) -> float:
        """Of the two means; both have the same clusters, two or more."""
        products = math.fsum(r * other.residuals[key] for key, r in self.residuals.items())
        correction = self.num_clusters / (self.num_clusters - 1)
        return correction * products / (self.num_samples * other.num_samples)

    def correlation(self, other: _Clusters) -> float:
        """Of the two means; 0, which widens a difference, where one does not vary."""
        variances = self.covariance(self) * other.covariance(other)
        if variances <= 1e-24:
            return 0.0
        return max(-1.0, min(1.0, self.covariance(other) / math.sqrt(variances)))

    def estimate(self, unscored: int) -> Estimate:
        """Put an interval around the mean."""
        low, high = self._interval() if self.num_clusters > 1 else (None, None)
        return Estimate(
            value=self.mean if self.num_samples else None,
            low=low,
            high=high,
            n=self.num_samples,
            num_clusters=self.num_clusters,
            unscored=unscored,
        )

    def _interval(self) -> tuple[float, float]:
        quantile = float(stdtrit(self.num_clusters - 1, _TAIL))
        variance = self.covariance(self)
        if self.bounds is None:
            half = quantile * math.sqrt(variance)
            return self.mean - half, self.mean + half
        floor, ceiling = self.bounds
        scale = ceiling - floor
        p = (self.mean - floor) / scale
        # Where clusters do not vary at all, each is worth one sample: what is surely known.
        relative = variance / scale**2
        size = p * (1 - p) / relative if relative > 1e-12 else float(self.num_clusters)
        share = quantile**2 / size
        centre = (p + share / 2) / (1 + share)
        half = math.sqrt(max(share * p * (1 - p) + share**2 / 4, 0)) / (1 + share)
        # Rounding must not push an end past the bounds or past the mean.
        low = min(max(centre - half, 0.0), p)
        high = max(min(centre + half, 1.0), p)
        return floor + scale * low, floor + scale * high


def _by_cluster(observations: Iterable[Observation], bounds: tuple[float, float] | None) -> _Sorted:
    scored: defaultdict[str, list[float]] = defaultdict(list)
    unscored = 0
    floor, ceiling = bounds or (-math.inf, math.inf)
    for observation in observations:
        if observation.value is None:
            unscored += 1
            continue
        if not math.isfinite(observation.value) or not floor <= observation.value <= ceiling:
            raise ValueError(
                f"score {observation.value} of {observation.cluster!r}; expected a finite number "
                f"in [{floor:g}, {ceiling:g}], or None where it could not be scored"
            )
        scored[observation.cluster].append(float(observation.value))
    return _Sorted(scored=dict(scored), unscored=unscored)


def _weighted(parts: Iterable[tuple[float, float | None]]) -> float | None:
    terms = []
    for weight, value in parts:
        if value is None:
            return None
        terms.append(weight * value)
    return math.fsum(terms)


def _half_width(parts: Iterable[tuple[float, float | None, float | None]]) -> float | None:
    squares = []
    for weight, value, end in parts:
        if value is None or end is None:
            return None
        squares.append((weight * (value - end)) ** 2)
    return math.sqrt(math.fsum(squares))
