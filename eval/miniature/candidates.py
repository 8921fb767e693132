"""Samples that were searched for: every candidate is kept, so that all can be looked at later.

The chosen trajectory stands under the sample's key, and what became of all candidates in its
provenance; each other one stands under a key with the number of the candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from eval.search.best_of import NOT_VERIFIED, Found
from staged import strict_json
from staged.trajectory import Trajectory

SEARCH = "search"
"""Where in the provenance of a trajectory it stands what it was chosen among."""


@dataclass(frozen=True, kw_only=True)
class CandidateFacts:
    """What is known of a candidate.

    Attributes:
        seed: Of its noise.
        rating: By the verifier; None where it could not be rated.
        num_flow_steps: Network evaluations that it took.
    """

    seed: int
    rating: float | None
    num_flow_steps: int


@dataclass(frozen=True, kw_only=True)
class SearchFacts:
    """What a trajectory was chosen among.

    Attributes:
        verifier: Name of who chose.
        chosen: Place of the chosen one; None where none could be rated.
        candidates: All of them, in the order in which they were drawn.
    """

    verifier: str
    chosen: int | None
    candidates: tuple[CandidateFacts, ...]

    @property
    def num_flow_steps(self) -> int:
        """Network evaluations of all candidates."""
        return sum(candidate.num_flow_steps for candidate in self.candidates)


def candidate_key(key: str, number: int) -> str:
    """Name a candidate that was not chosen."""
    return f"{key}-c{number:03d}"


def keyed(key: str, found: Found) -> Iterator[tuple[str, Trajectory]]:
    """Give the trajectories of a search with the keys that they are kept under.

    Where none could be rated the first one is kept as a failure: nobody has chosen it.
    """
    taken = found.chosen or 0
    for number, candidate in enumerate(found.candidates):
        trajectory = candidate.outcome.trajectory
        assert trajectory is not None  # our own loop draws, and it keeps its steps
        if number != taken:
            yield candidate_key(key, number), trajectory
            continue
        cost = {**trajectory.provenance.get("cost", {}), **found.cost}
        provenance = {**trajectory.provenance, "cost": cost, SEARCH: found.as_dict()}
        if found.chosen is None and not provenance.get("failure"):
            provenance["failure"] = NOT_VERIFIED
        yield key, replace(trajectory, provenance=provenance)


def search_facts(trajectory: Trajectory, place: str) -> SearchFacts | None:
    """Read what a trajectory was chosen among; None where there was no search.

    Raises:
        ValueError: its provenance is damaged.
    """
    found = trajectory.provenance.get(SEARCH)
    if found is None:
        return None
    place = f"{place}: provenance.{SEARCH}"
    wanted = {"verifier": str, "candidates": list}
    record = strict_json.record(found, place, wanted, {"chosen": int})
    candidates = tuple(
        _candidate(candidate, f"{place}.candidates[{number}]")
        for number, candidate in enumerate(record["candidates"])
    )
    chosen = record.get("chosen")
    if not candidates or (chosen is not None and not 0 <= chosen < len(candidates)):
        raise ValueError(f"{place}: chosen is {chosen} of {len(candidates)} candidates")
    return SearchFacts(verifier=record["verifier"], chosen=chosen, candidates=candidates)


def _candidate(found: Any, place: str) -> CandidateFacts:
    record = strict_json.record(
        found, place, {"seed": int, "flow_steps": float}, {"rating": float, "reason": str}
    )
    return CandidateFacts(
        seed=record["seed"],
        rating=record.get("rating"),
        num_flow_steps=int(record["flow_steps"]),
    )


def trajectories_of(
    key: str, facts: SearchFacts, trajectories: Mapping[str, Trajectory]
) -> list[Trajectory]:
    """Return the trajectories of all candidates, in order.

    Raises:
        ValueError: one of them is missing.
    """
    keys = [candidate_key(key, number) for number in range(len(facts.candidates))]
    keys[facts.chosen or 0] = key
    missing = [name for name in keys if name not in trajectories]
    if missing:
        raise ValueError(f"candidate {missing[0]} of sample {key} is missing; draw it again")
    return [trajectories[name] for name in keys]
