"""Counts over trajectories, as the manifest and `staged data stats` show them."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from staged.settings.plain import plain
from staged.trajectory import Inspection, Trajectory


@dataclass(kw_only=True)
class Stats:
    """Running counts.

    Attributes:
        trajectories: How many.
        complete: Of them, those that end with `Stop`.
        images: Inputs and sketches.
        num_flow_steps: Network evaluations of all flows.
        tasks: Task -> trajectories; `none` for those without.
        steps: Kind of step -> number.
        supervised: Kind of step -> number of those with a loss.
        verdicts: Target -> verdict -> number.
        sketches: Sketches in a trajectory -> trajectories.
        failures: Reason -> trajectories that failed for it.
        models: `role: name` -> trajectories.
        licences: Licence of the generating model -> trajectories.
        cost: Unit -> amount, of these trajectories only.
        drift: What edits did to the whole of a picture, where that was measured: how far it moved
            and how much its colours changed -> sketches, and whether its motion was undone.
        not_drawn: Deliberate mistake of the plan-sketch pipeline that its editor did not draw, so
            that nothing refuses it -> sketches.
    """

    trajectories: int = 0
    complete: int = 0
    images: int = 0
    num_flow_steps: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    supervised: Counter[str] = field(default_factory=Counter)
    verdicts: dict[str, Counter[str]] = field(
        default_factory=lambda: {"plan": Counter(), "sketch": Counter()}
    )
    sketches: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    cost: dict[str, float] = field(default_factory=dict)
    drift: dict[str, Counter[str]] = field(default_factory=dict)
    not_drawn: Counter[str] = field(default_factory=Counter)

    def add(self, trajectory: Trajectory) -> None:
        """Count one more."""
        self.trajectories += 1
        self.complete += trajectory.complete
        self.images += len(trajectory.images)
        self.num_flow_steps += trajectory.num_flow_steps
        self.tasks[trajectory.task or "none"] += 1
        self.sketches[str(len(trajectory.images) - len(trajectory.inputs))] += 1
        for step in trajectory.steps:
            kind = type(step).__name__.lower()
            self.steps[kind] += 1
            self.supervised[kind] += step.loss
            if isinstance(step, Inspection):
                self.verdicts[step.target][step.verdict] += 1
        provenance = trajectory.provenance
        for name, counter in (("failure", self.failures), ("licence", self.licences)):
            if isinstance(provenance.get(name), str):
                counter[provenance[name]] += 1
        models, cost = provenance.get("models"), provenance.get("cost")
        if isinstance(models, dict):
            self.models.update(f"{role}: {name}" for role, name in models.items())
        if isinstance(cost, dict):
            for unit, amount in cost.items():
                if isinstance(amount, int | float):
                    self.cost[unit] = self.cost.get(unit, 0) + amount

        for one in drifts(trajectory):
            for name, kind in one.items():
                self.drift.setdefault(name, Counter())[kind] += 1
        missed = provenance.get("mistakes_not_drawn")
        self.not_drawn.update(map(str, missed if isinstance(missed, list) else []))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, without what is counted in some data sets only where it is 0."""
        rare = ("drift", "not_drawn")
        return {n: plain(value) for n, value in vars(self).items() if n not in rare or value}


MOVED: Final = ("up to 0.1%", "up to 0.3%", "up to 1%", "up to 3%", "beyond 3%")
"""Farthest that a corner has moved, as a share of the longer side."""
TINTED: Final = ("up to 1 of 255", "up to 3", "up to 8", "up to 20", "beyond 20")
"""Most that a channel has changed outside of the edit, in levels."""
_MOVED_TO, _TINTED_TO = (0.001, 0.003, 0.01, 0.03), (1.0, 3.0, 8.0, 20.0)


def drifts(trajectory: Trajectory) -> Iterator[dict[str, str]]:
    """Yield of each sketch whose drift was measured how much it was, in words that are counted."""
    noted = trajectory.provenance.get("drift")
    for one in noted if isinstance(noted, list) else []:
        if not isinstance(one, dict):
            continue
        moved, tint = one.get("moved"), one.get("tint")
        if isinstance(moved, int | float) and isinstance(tint, list) and _numbers(tint):
            yield {
                "moved": MOVED[bisect_left(_MOVED_TO, moved)],
                "tint": TINTED[bisect_left(_TINTED_TO, max(map(abs, tint)))],
                "realigned": "yes" if "realigned" in one else "no",
            }


def _numbers(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, int | float) for value in values)
