"""The share of each verdict in the whole data set, decided when the shards are written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import get_args

from data_pipelines.critique.lessons import cut, placed
from data_pipelines.critique.settings import Learned
from staged.trajectory import Inspection, Target, Trajectory, Verdict

_Place = tuple[int, int]
"""Unit and place of a step."""


@dataclass(frozen=True)
class Balance:
    """Inspections of which there are too many.

    Attributes:
        left_out: Acceptances that are taken out; what follows goes on without them.
        unsupervised: Refusals that stay, for what follows them, and are not learned.
    """

    left_out: frozenset[_Place]
    unsupervised: frozenset[_Place]

    @classmethod
    def of(cls, lessons: Iterable[tuple[int, Trajectory]], learned: Learned, seed: int) -> Balance:
        """Choose, by lot, which inspections make one verdict too frequent.

        Where a verdict does not occur at all the other one is left alone.

        Args:
            lessons: Unit and trajectory of the whole data set.
            learned: The wanted shares.
            seed: Of the lots.
        """
        shares = {"plan": learned.accepted_plans, "sketch": learned.accepted_sketches}
        found: dict[tuple[Target, Verdict], list[_Place]] = {}
        for unit, trajectory in lessons:
            for place, step in enumerate(trajectory.steps):
                if isinstance(step, Inspection) and step.loss:
                    found.setdefault((step.target, step.verdict), []).append((unit, place))
        surplus: dict[Verdict, set[_Place]] = {"accept": set(), "revise": set()}
        for target in get_args(Target):
            share = shares[target]
            accepted, refused = (
                sorted(found.get((target, verdict), []), key=lambda at: _lot(seed, at))
                for verdict in ("accept", "revise")
            )
            if share is None or not accepted or not refused:
                continue
            # One of the two is kept whole.
            if len(accepted) * (1 - share) > len(refused) * share:
                surplus["accept"] |= set(accepted[round(len(refused) * share / (1 - share)) :])
            else:
                most = round(len(accepted) * (1 - share) / share) if share else len(refused)
                surplus["revise"] |= set(refused[most:])
        return cls(frozenset(surplus["accept"]), frozenset(surplus["revise"]))

    def applied(self, unit: int, trajectory: Trajectory) -> Trajectory | None:
        """Take out what is too much; None where nothing is left to learn."""
        kept = [
            place for place in range(len(trajectory.steps)) if (unit, place) not in self.left_out
        ]
        steps = tuple(
            replace(step, loss=False) if (unit, place) in self.unsupervised else step
            for place, step in enumerate(trajectory.steps)
            if place in kept
        )
        provenance = placed(trajectory.provenance, kept)
        return cut(replace(trajectory, steps=steps, provenance=provenance))


def _lot(seed: int, place: _Place) -> bytes:
    return hashlib.sha256(f"{seed}/{place[0]}/{place[1]}/balance".encode()).digest()
