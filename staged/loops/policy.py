"""What a loop lets come next: the legal moves, cut by mode and by limits.

Limits look ahead. A round begins only with flow steps left for its sketch, and nothing is
inspected that could not be refined any more: a verdict that nobody can act on would only leave
the trajectory at a refusal, where it may not stop. So the newest sketch is the best state seen
whenever a trajectory ends: an older one of its round was refused, and an older round shows less.
"""

from dataclasses import dataclass
from typing import Final, Literal, Self

from staged.ranges import check_choices, check_range
from staged.trajectory import MAX_STEPS, Inspection, Move, Refinement, Trajectory, moves

Mode = Literal["staged", "one-shot", "answer"]
Inspect = Literal["model", "always", "never"]
"""Whether something is inspected: as the model decides, each time, or never."""
Player = Literal["model", "scripted", "lmm"]
Sketcher = Literal["model", "editing", "scripted"]
"""Who plays a role; see `staged.generate.role_choice.RoleChoice`."""

_STEPS_A_REFINEMENT: Final = 3  # refinement, plan or sketch, inspection


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Mode and limits of a loop.

    Attributes:
        mode: `staged` lets the model plan (or draw at once, if it decides so); `one-shot` begins
            with a sketch; `answer` answers a question about the input images.
        think: Whether a thought is written before a one-shot sketch.
        max_rounds: Plans that are sketched, at most.
        max_refinements: Of one plan, and of one round's sketch, at most.
        max_flow_steps: Network evaluations of all sketches, at most.
        max_attempts: Times that one step is tried.
        inspect_plan: Whether plans are inspected.
        inspect_sketch: Whether sketches are inspected. Outside `staged` mode the model is not
            asked: `model` means never.
    """

    mode: Mode = "staged"
    think: bool = False
    max_rounds: int = 6
    max_refinements: int = 2
    max_flow_steps: int = 300
    max_attempts: int = 3
    inspect_plan: Inspect = "model"
    inspect_sketch: Inspect = "model"

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a value is out of range.
        """
        check_choices(self, mode=Mode, inspect_plan=Inspect, inspect_sketch=Inspect)
        if self.think and self.mode == "staged":
            raise ValueError("think: a staged trajectory plans instead; give mode one-shot")
        check_range(self, "max_rounds", "max_flow_steps", "max_attempts", minimum=1)
        check_range(self, "max_refinements", minimum=0)
        # Plan, inspection, sketch, inspection, and as many refinements of each; and the stop.
        longest = self.max_rounds * (4 + 2 * _STEPS_A_REFINEMENT * self.max_refinements) + 1
        if longest > MAX_STEPS:
            raise ValueError(
                f"max_rounds {self.max_rounds} with max_refinements {self.max_refinements} allows "
                f"{longest} steps, a trajectory holds {MAX_STEPS}; lower one of them"
            )

    def check_cost(self, sketch_cost: int) -> None:
        """Make sure that something can be drawn.

        Args:
            sketch_cost: Network evaluations of a sketch.

        Raises:
            ValueError: the limits leave no flow steps for a single sketch.
        """
        if self.mode != "answer" and sketch_cost > self.max_flow_steps:
            raise ValueError(
                f"a sketch takes {sketch_cost} flow steps, max_flow_steps is "
                f"{self.max_flow_steps}: nothing could be drawn; raise it"
            )

    def allowed(self, trajectory: Trajectory, sketch_cost: int) -> tuple[Move, ...]:
        """Name the moves that may come next.

        Args:
            trajectory: The steps so far.
            sketch_cost: Network evaluations of a sketch.

        Returns:
            Legal moves within mode and limits. Empty after a stop, and where a trajectory that
            was begun elsewhere has no flow steps left for the sketch it needs.
        """
        if not trajectory.steps:
            thinks = self.think and self.mode == "one-shot"
            return ("think",) if thinks else _STARTS[self.mode]
        before = trajectory.steps[-1]
        left = trajectory.num_flow_steps + sketch_cost <= self.max_flow_steps
        counts = _Counts.of(trajectory)
        # One look at a state is enough: nothing has changed since.
        seen = isinstance(before, Inspection)
        wish: dict[Move, Inspect] = {
            "inspect plan": self.inspect_plan,
            "inspect sketch": self.inspect_sketch,
        }
        possible: dict[Move, bool] = {
            "inspect plan": not seen and counts.of_plan < self.max_refinements,
            "inspect sketch": not seen and left and counts.of_sketch < self.max_refinements,
            "plan": isinstance(before, Refinement) or (left and counts.rounds < self.max_rounds),
            "sketch": left,
            # Legal in chains of thoughts and pictures, as data has them; no mode makes those.
            "think": False,
            "answer": False,
        }
        kept: list[Move] = []
        for move in trajectory.legal_next():
            if not possible.get(move, True):
                continue
            if move in wish:
                if wish[move] == "always":
                    return (move,)
                if wish[move] == "never" or self.mode != "staged":
                    continue
            kept.append(move)
        return tuple(kept)


_STARTS: Final[dict[Mode, tuple[Move, ...]]] = {
    "staged": ("plan", "sketch"),
    "one-shot": ("sketch",),
    "answer": ("answer",),
}


@dataclass(frozen=True)
class _Counts:
    """Refinements of the plan and of the sketch in the present round, and rounds so far."""

    of_plan: int
    of_sketch: int
    rounds: int

    @classmethod
    def of(cls, trajectory: Trajectory) -> Self:
        plan = sketch = rounds = 0
        last: Move | None = None
        for move in moves(trajectory.steps):
            if move == "plan" and last != "refine plan":
                plan, sketch, rounds = 0, 0, rounds + 1
            plan += move == "refine plan"
            sketch += move == "refine sketch"
            last = move
        return cls(plan, sketch, rounds)
