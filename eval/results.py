"""The file that a finished evaluation leaves: its scores, what they rest on, and every sample.

A result keeps the score of every sample, so that two results can be paired and nothing has to be
believed: reading one computes its numbers again and refuses a file whose numbers differ. It holds
no time and no path, so equal evaluations leave equal bytes.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import staged
from eval.statistics import METHOD, UNIT, Estimate, Observation, mean, weighted_mean
from staged import strict_json
from staged.jobs.files import write_json

FORMAT = "staged-eval-result/1"
OVERALL = "overall"
_MAX_BYTES = 256 * 1024 * 1024
_FIELDS = {
    "benchmark": str, "variant": dict, "run": str, "samples": dict, "weights": dict, "also": dict,
    "estimates": dict, "provenance": dict,
}  # fmt: skip
_PACKAGES = ("numpy", "scipy", "torch", "transformers", "diffusers", "pillow")

Samples = Mapping[str, Mapping[str, tuple[float | None, ...]]]
"""Part, then prompt, then the score of each of its images: within bounds, None where unscored."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """Scores of one run on one benchmark.

    Attributes:
        benchmark: Which one: `geneval`, `wise`, …
        variant: What its numbers depend on beside the model: version, prompts, judge, weighting,
            mode of scoring. Numbers of different variants are not compared.
        samples: The score of every image, by part (task or category) and prompt.
        weights: Of the parts in the overall score; they sum to 1.
        run: Name of what was evaluated, for tables.
        also: Further estimates, by name.
        provenance: Seeds, fingerprints and versions.
        bounds: Least and greatest score that an image can have; None where there is none, as
            with most rewards.
    """

    benchmark: str
    variant: Mapping[str, str]
    samples: Samples
    weights: Mapping[str, float]
    run: str = ""
    also: Mapping[str, Estimate] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    bounds: tuple[float, float] | None = UNIT

    def __post_init__(self) -> None:
        """Check that samples and weights name the same parts.

        Raises:
            ValueError: they do not, or a score is not within the bounds.
        """
        if not self.samples or self.samples.keys() != self.weights.keys():
            raise ValueError(
                f"result of {self.benchmark}: parts {sorted(self.samples)} and weights of "
                f"{sorted(self.weights)}; expected the same parts, one or more"
            )
        _ = self.estimates

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """The overall score, then that of each part."""
        parts = {part: mean(self.observations(part), bounds=self.bounds) for part in self.samples}
        overall = weighted_mean([(self.weights[part], parts[part]) for part in parts])
        return {OVERALL: overall, **parts}

    def figures(self) -> dict[str, Any]:
        """Return what `--json` prints: every estimate with its interval and counts."""
        return {
            "benchmark": self.benchmark,
            "variant": dict(self.variant),
            "run": self.run,
            **{
                name: estimate.as_dict()
                for name, estimate in {**self.estimates, **self.also}.items()
            },
        }

    @property
    def overall(self) -> Estimate:
        """Return the weighted mean of the parts."""
        return self.estimates[OVERALL]

    def observations(self, part: str) -> list[Observation]:
        """Return the samples of a part for the statistics."""
        return [
            Observation(cluster=prompt, value=value)
            for prompt, values in self.samples[part].items()
            for value in values
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the file's content: numbers for reading on top, everything else below."""
        overall = self.overall
        return {
            "format": FORMAT,
            "benchmark": self.benchmark,
            "variant": dict(self.variant),
            "run": self.run,
            "overall": overall.value,
            "interval": [overall.low, overall.high],
            "n": overall.n,
            "unscored": overall.unscored,
            "categories": {part: self.estimates[part].value for part in self.samples},
            "estimates": {name: estimate.as_dict() for name, estimate in self.estimates.items()},
            "also": {name: estimate.as_dict() for name, estimate in self.also.items()},
            "interval_method": METHOD,
            "weights": dict(self.weights),
            "bounds": list(self.bounds) if self.bounds else None,
            "provenance": dict(self.provenance),
            # Objects are written sorted; this is the order to show parts in.
            "parts": list(self.samples),
            "samples": {
                part: {prompt: list(prompts[prompt]) for prompt in sorted(prompts)}
                for part, prompts in self.samples.items()
            },
        }

    def write(self, path: Path) -> None:
        """Write the file; a reader never sees half of it.

        Raises:
            OSError: the folder cannot be written.
        """
        write_json(path, self.as_dict())

    @classmethod
    def read(cls, path: Path) -> BenchmarkResult:
        """Read a file and compute its numbers again.

        Raises:
            ValueError: not a result, or its numbers do not follow from its samples.
            OSError: the file cannot be read.
        """
        data = strict_json.read(path, max_bytes=_MAX_BYTES)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            found = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise ValueError(f"{path}: format {found!r:.60}; expected {FORMAT!r}")
        strict_json.record(data, str(path), _FIELDS, others=True)
        also, weights = data["also"].items(), data["weights"].items()
        result = cls(
            benchmark=strict_json.unicode_text(data["benchmark"], f"{path}.benchmark"),
            variant={key: str(value) for key, value in data["variant"].items()},
            samples=_samples(data, path),
            weights={name: _number(value, f"{path}: weights.{name}") for name, value in weights},
            run=strict_json.unicode_text(data["run"], f"{path}.run"),
            also={name: _estimate(value, f"{path}: also.{name}") for name, value in also},
            provenance=data["provenance"],
            bounds=_bounds(data, path),
        )
        for name, estimate in result.estimates.items():
            stated = _estimate(data["estimates"].get(name), f"{path}: {name}")
            if not _agree(stated, estimate):
                raise ValueError(
                    f"{path}: states {name} {stated}, but its samples give {estimate}; "
                    "the file was changed after it was written, so score the run again"
                )
        return result


def versions() -> dict[str, str]:
    """Return the versions that a score may depend on, of what is installed."""
    found = {"staged": staged.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def only_one(names: Iterable[str], what: str, whose: str) -> str | None:
    """Return the one name that there is, or None.

    Args:
        names: Of who scored; empty ones say nothing.
        what: They made, for the message.
        whose: What they are, likewise.

    Raises:
        ValueError: there are several.
    """
    several = sorted(set(names) - {""})
    if len(several) > 1:
        raise ValueError(
            f"{what} of {len(several)} {whose}: {'; '.join(several)}. What they say differs, so "
            "score each alone"
        )
    return next(iter(several), None)


def unscored_message(name: str, estimates: Iterable[Estimate]) -> str | None:
    """Say that samples are unscored; None where all have a score."""
    unscored = sum(estimate.unscored for estimate in estimates)
    if not unscored:
        return None
    return (
        f"{name}: {unscored} samples are unscored, so the scores are those of the others; "
        "complete them, or accept it with --allow-unscored"
    )


def _agree(stated: Estimate, computed: Estimate) -> bool:
    def same(name: str) -> bool:
        a, b = getattr(stated, name), getattr(computed, name)
        return a is b if a is None or b is None else abs(a - b) < 1e-9

    return all(map(same, ("value", "low", "high", "n", "num_clusters", "unscored")))


def _samples(data: Mapping[str, Any], path: Path) -> Samples:
    samples = data["samples"]
    order = data.get("parts", sorted(samples))
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(samples):
        raise ValueError(f"{path}: parts: {order!r:.80}; expected the parts of samples, in order")
    parts: dict[str, dict[str, tuple[float | None, ...]]] = {}
    for part in order:
        prompts = samples[part]
        if not isinstance(prompts, dict):
            raise ValueError(f"{path}: samples.{part}: expected an object of prompts")
        parts[part] = {}
        for prompt, values in prompts.items():
            place = f"{path}: samples.{part}.{prompt!r:.60}"
            if not isinstance(values, list):
                raise ValueError(f"{place}: expected a list of scores")
            parts[part][prompt] = tuple(
                None if value is None else _number(value, place) for value in values
            )
    return parts


def _bounds(data: Mapping[str, Any], path: Path) -> tuple[float, float] | None:
    value = data.get("bounds", list(UNIT))
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{path}: bounds: {value!r:.80}; expected the least and greatest score")
    least, greatest = (_number(end, f"{path}: bounds") for end in value)
    if not least < greatest:
        raise ValueError(f"{path}: bounds: {value!r:.80}; expected the least score first")
    return least, greatest


def _estimate(data: Any, place: str) -> Estimate:
    ends = {"value": float, "low": float, "high": float}
    counts = {"n": int, "num_clusters": int, "unscored": int}
    record = strict_json.record(data, place, counts, {**ends, "unpaired": int})
    return Estimate(**{**dict.fromkeys(ends), **record})


def _number(value: Any, place: str) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{place}: expected a number, got {value!r:.40}")
    return float(value)
