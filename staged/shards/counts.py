"""Counts over trajectories, as the manifest and `staged data stats` show them."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

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

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {name: plain(value) for name, value in vars(self).items()}
