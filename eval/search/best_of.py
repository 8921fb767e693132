"""Best-of-N over any generator: draw candidates, rate each, keep the best of every picture."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eval.generation.samples import BenchmarkSample
from eval.search.settings import MAX_CANDIDATES, SearchSettings
from staged.backends.generators.generator import DrawnImage, DrawOutcome, Generator, NoImage
from staged.jobs.units import units
from staged.roles import Rated, Rating, Verifier

FLOW_STEPS = "flow_steps"
SIDE_BY_SIDE = 16
"""Samples that are searched together where the generator does not mind their company."""
NOT_VERIFIED = "not verified"
"""Why a picture is missing of which candidates were drawn, and none could be rated."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One of several pictures of a sample.

    Attributes:
        seed: Of its noise.
        outcome: What came of it.
        rating: What the verifier said; without a value where there is no picture.
    """

    seed: int
    outcome: DrawOutcome
    rating: Rating

    @property
    def flow_steps(self) -> float:
        """Network evaluations that it took."""
        return self.outcome.cost.get(FLOW_STEPS, 0.0)

    def as_dict(self) -> dict[str, Any]:
        """Return what is kept of it beside the picture."""
        record: dict[str, Any] = {
            "seed": self.seed,
            "rating": self.rating.value,
            "flow_steps": self.flow_steps,
        }
        return record | ({"reason": self.rating.reason} if self.rating.reason else {})


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found for one sample.

    Attributes:
        candidates: In the order in which they were drawn.
        verifier: Who rated them.
    """

    candidates: tuple[Candidate, ...]
    verifier: str

    @property
    def chosen(self) -> int | None:
        """Place of the best-rated, of equals the first; None where none was rated."""
        return best([candidate.rating.value for candidate in self.candidates])

    @property
    def cost(self) -> dict[str, float]:
        """What all candidates cost, by unit."""
        total: dict[str, float] = {}
        for candidate in self.candidates:
            for unit, amount in candidate.outcome.cost.items():
                total[unit] = total.get(unit, 0.0) + amount
        return total

    def as_dict(self) -> dict[str, Any]:
        """Return what is kept beside the pictures."""
        return {
            "verifier": self.verifier,
            "chosen": self.chosen,
            "candidates": [candidate.as_dict() for candidate in self.candidates],
        }


def best(ratings: Sequence[float | None]) -> int | None:
    """Return the place of the highest rating, of equals the first; None where there is none."""
    rated = [(value, place) for place, value in enumerate(ratings) if value is not None]
    return max(rated, key=lambda pair: (pair[0], -pair[1]))[1] if rated else None


def candidate_seed(seed: int, number: int) -> int:
    """Return the seed of a candidate, below 2**48; the first has the sample's own.

    So the best of one is what the generator draws alone, and more candidates keep those that
    were there.
    """
    if not number:
        return seed
    digest = hashlib.blake2b(f"{seed}/candidate/{number}".encode(), digest_size=6).digest()
    return int.from_bytes(digest)


class BestOf:
    """A generator whose pictures are the best of those that another one draws.

    Args:
        generator: Who draws.
        verifier: Who rates.
        settings: How many candidates.
        batch: Samples that are searched side by side; it changes nothing where the generator
            draws each picture alone.

    Attributes:
        alone: As the generator's.
    """

    def __init__(
        self,
        generator: Generator[BenchmarkSample],
        verifier: Verifier,
        settings: SearchSettings,
        *,
        batch: int = 1,
    ) -> None:
        """Keep the parts."""
        self._generator, self._verifier, self._settings = generator, verifier, settings
        self._batch, self.alone = batch, generator.alone

    @property
    def name(self) -> str:
        """Who draws, and how is searched."""
        return f"{self._generator.name}, {self._settings.words}"

    def identity(self) -> Mapping[str, Any]:
        """What decides the candidates, and who chooses among how many."""
        search = self._settings.decides(self._verifier.name)
        return {**self._generator.identity(), "search": search}

    def draw(
        self, samples: Sequence[BenchmarkSample]
    ) -> Iterator[tuple[BenchmarkSample, DrawOutcome]]:
        """Draw each sample; see `Generator`."""
        for sample, found in self.search(samples):
            yield sample, outcome_of(found)

    def search(self, samples: Sequence[BenchmarkSample]) -> Iterator[tuple[BenchmarkSample, Found]]:
        """Draw and rate candidates of each sample, some samples side by side.

        Raises:
            ValueError: the flow steps do not pay for a single candidate, or nobody counts them.
        """
        # What was found is given away group by group, so that a kill costs one group.
        for group in units(samples, self._batch):
            yield from self._search(group)

    def _search(
        self, samples: Sequence[BenchmarkSample]
    ) -> Iterator[tuple[BenchmarkSample, Found]]:
        searches = [_Search(sample=sample) for sample in samples]
        live = searches
        while live:
            asked = [search.next(self._settings.candidates) for search in live]
            outcomes = {sample.path: (sample, o) for sample, o in self._generator.draw(asked)}
            drawn = [outcomes[search.sample.path] for search in live]
            for search, (asked_for, outcome), rating in zip(
                live, drawn, self._rate([pair for pair in drawn]), strict=True
            ):
                search.candidates.append(
                    Candidate(seed=asked_for.seed, outcome=outcome, rating=rating)
                )
            if live is searches:
                self._check(searches)
            live = [search for search in live if self._goes_on(search.candidates)]
        for search in searches:
            yield (
                search.sample,
                Found(candidates=tuple(search.candidates), verifier=self._verifier.name),
            )

    def _rate(self, drawn: Sequence[tuple[BenchmarkSample, DrawOutcome]]) -> list[Rating]:
        pictures = [
            Rated(prompt=sample.prompt, pixels=outcome.pixels)
            for sample, outcome in drawn
            if isinstance(outcome, DrawnImage)
        ]
        ratings = iter(self._verifier.rate(pictures))
        return [
            _checked(next(ratings), self._verifier.name)
            if isinstance(outcome, DrawnImage)
            else Rating(value=None, reason=outcome.reason)
            for _, outcome in drawn
        ]

    def _check(self, searches: Sequence[_Search]) -> None:
        """Look at the first candidates: do the flow steps pay for them?"""
        total = self._settings.total_flow_steps
        if total is None:
            return
        costs = [search.candidates[0].flow_steps for search in searches]
        if not any(costs) and any(
            isinstance(search.candidates[0].outcome, DrawnImage) for search in searches
        ):
            raise ValueError(
                f"{self._generator.name} does not count its flow steps, so nobody knows how many "
                f"candidates {total} of them pay for; give a number of candidates"
            )
        if min(costs) > total:
            raise ValueError(
                f"one picture of {self._generator.name} takes {min(costs):g} flow steps and "
                f"{total} are there for all candidates; give more"
            )

    def _goes_on(self, candidates: Sequence[Candidate]) -> bool:
        if self._settings.candidates is not None:
            return len(candidates) < self._settings.candidates
        assert self._settings.total_flow_steps is not None
        spent = math.fsum(candidate.flow_steps for candidate in candidates)
        fits = spent + spent / len(candidates) <= self._settings.total_flow_steps
        return bool(spent) and fits and len(candidates) < MAX_CANDIDATES


@dataclass
class _Search:
    """A sample and its candidates so far."""

    sample: BenchmarkSample
    candidates: list[Candidate] = field(default_factory=list)

    def next(self, of: int | None) -> BenchmarkSample:
        """Return the next candidate as a sample.

        Args:
            of: How many there will be, where it is known: candidates are then counted among the
                images of the prompt, so that they are found in a folder of more images.
        """
        number, sample = len(self.candidates), self.sample
        seed = candidate_seed(sample.seed, number)
        if of is None:
            return replace(sample, seed=seed)
        return replace(
            sample, seed=seed, image=sample.image * of + number, number=sample.number * of + number
        )


def outcome_of(found: Found) -> DrawOutcome:
    """Say what came of a sample: the chosen picture, at the cost of all candidates."""
    if found.chosen is None:
        outcomes = [candidate.outcome for candidate in found.candidates]
        failed = next((outcome for outcome in outcomes if isinstance(outcome, NoImage)), None)
        if any(isinstance(outcome, DrawnImage) for outcome in outcomes) or failed is None:
            reason = next((c.rating.reason for c in found.candidates if c.rating.reason), "")
            return NoImage(reason=NOT_VERIFIED, detail=reason, cost=found.cost)
        final = all(isinstance(outcome, NoImage) and outcome.final for outcome in outcomes)
        return replace(failed, final=final, cost=found.cost)
    chosen = found.candidates[found.chosen].outcome
    assert isinstance(chosen, DrawnImage)
    return replace(chosen, cost=found.cost, search=found.as_dict())


def _checked(rating: Rating, name: str) -> Rating:
    if rating.value is not None and not math.isfinite(rating.value):
        return Rating(value=None, reason=f"{name} gave {rating.value}")
    return rating
