"""Settings of `staged data plan-sketch`."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from data_pipelines.drift.limits import DriftLimits
from data_pipelines.job_settings import DrawnJobSettings
from data_pipelines.plan_sketch.mistakes import IN_PLANS, MISTAKES, MistakeKind
from staged.ranges import check_range
from staged.scene_graph import VARIATIONS, Variation, Vocabulary
from staged.shapes.world.scene import COLORS, KINDS


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How a scene is split into steps.

    Null is what suits the job: the miniature world's own words, or those of everyday things.
    """

    max_steps: int | None = None
    """Most steps of a trajectory, repairs included; null: 4 in the miniature world, otherwise 5."""
    min_steps: int | None = None
    """Fewest steps of a trajectory whose scene has so many parts; how many it is up to the most is
    drawn. Null: the most in the miniature world, otherwise 3."""
    late_attributes: float = 0.0
    """Probability that an attribute is given in a later step than its object, which then has any
    value at first."""
    grouped: float = 0.0
    """Probability that what could be a step of its own comes with the step before it: 0 draws one
    thing after the other, 1 everything at once."""
    varied: float = 0.2
    """Share of trajectories with a detour: a step draws something different, a later one repairs
    it by a change, a swap, an exchange or a removal."""
    variations: dict[Variation, float] = field(
        default_factory=lambda: dict.fromkeys(VARIATIONS, 1.0)
    )
    """Kinds of detours by weight: a change of an attribute, a swap for another thing, an exchange
    of two places, a removal. Those that are not named are not made."""
    max_objects: int | None = None
    """Most objects at any time; scenes with more are rejected; null: 5 in the miniature world,
    otherwise 12."""
    classes: tuple[str, ...] | None = None
    """What detours and deliberate mistakes may draw instead; null: the miniature world's shapes, or
    what the language model proposes for each thing."""
    attributes: dict[str, tuple[str, ...]] | None = None
    """Attribute kind -> values that they may draw instead; null: colours in the miniature world, or
    what the language model proposes for each attribute."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "max_steps", "min_steps", "max_objects", minimum=1)
        check_range(self, "late_attributes", "grouped", "varied", minimum=0, maximum=1)
        if any(not weight >= 0 for weight in self.variations.values()):
            raise ValueError(f"variations: weights must be 0 or more, got {self.variations}")
        if self.min_steps is not None and self.min_steps > (self.max_steps or self.min_steps):
            raise ValueError(f"min_steps is {self.min_steps}, and max_steps {self.max_steps}")

    def with_defaults(self, *, miniature: bool) -> "Steps":
        """Fill in what is null, by whose world it is."""
        most = self.max_steps or (4 if miniature else 5)
        defaults: dict[str, Any] = {
            "max_steps": most,
            "min_steps": most if miniature else min(3, most),
            "max_objects": 5 if miniature else 12,
        }
        if miniature:
            defaults |= {"classes": KINDS, "attributes": {"color": COLORS}}
        return replace(self, **{k: v for k, v in defaults.items() if getattr(self, k) is None})

    @property
    def limits(self) -> tuple[int, int, int]:
        """Fewest and most steps and most objects, of settings that are part of a job."""
        assert self.min_steps is not None
        assert self.max_steps is not None and self.max_objects is not None
        return self.min_steps, self.max_steps, self.max_objects

    def vocabulary(self, proposed: Vocabulary) -> Vocabulary:
        """What may be drawn instead: what is listed here, and otherwise what was proposed."""
        if self.classes is not None:
            proposed = replace(proposed, classes=self.classes, instead={})
        if self.attributes is not None:
            proposed = replace(proposed, attributes=self.attributes, values={})
        return proposed


@dataclass(frozen=True, kw_only=True)
class Critiques:
    """Which steps are inspected, and how many of those are wrong first.

    A wrong plan or sketch is in the sample without supervision; its inspection, its refinement and
    the corrected step are supervised.
    """

    inspect: Literal["nothing", "plans", "sketches", "both"] = "both"
    """The subsets of the method: plan and sketch alone, with inspections of either, or of both."""
    plans: float = 0.5
    """Share of plans that are inspected, where `inspect` has plans."""
    sketches: float = 0.7
    """Share of sketches that are inspected, where `inspect` has sketches."""
    wrong_plans: float = 0.35
    """Of the inspected plans, the share that is wrong first."""
    wrong_sketches: float = 0.35
    """Of the inspected sketches, the share that is wrong first."""
    plan_mistakes: tuple[MistakeKind, ...] = IN_PLANS
    """Kinds of mistakes in plans."""
    sketch_mistakes: tuple[MistakeKind, ...] = MISTAKES
    """Kinds of mistakes in sketches."""

    def __post_init__(self) -> None:
        """Check ranges."""
        shares = ("plans", "sketches", "wrong_plans", "wrong_sketches")
        check_range(self, *shares, minimum=0, maximum=1)
        beyond = [kind for kind in self.plan_mistakes if kind not in IN_PLANS]
        if beyond:
            raise ValueError(
                f"plan_mistakes: {', '.join(beyond)} contradicts no prompt; "
                f"choose from {', '.join(IN_PLANS)}"
            )

    @property
    def plan_share(self) -> float:
        """Share of plans that are inspected."""
        return self.plans if self.inspect in ("plans", "both") else 0.0

    @property
    def sketch_share(self) -> float:
        """Share of sketches that are inspected."""
        return self.sketches if self.inspect in ("sketches", "both") else 0.0


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a step must come to in the eyes of the judge, who is not told what was wanted."""

    min_grade: float = 4.0
    """Least grade of every question about what is there, from 1 (no) to 5 (certainly)."""
    min_kept: float = 3.0
    """Least grade of how well the rest stayed as it was."""
    min_quality: float = 3.0
    """Least grade of the image as an image."""
    max_extras: int = 0
    """Most things that nobody asked for."""
    both_orders: bool = False
    """Ask twice where there are two images, each once as the first, and take the mean: twice the
    price, and no preference for the image that comes last."""
    attempts: int | None = None
    """Times that a step is drawn, each onto the last image that passed, before its trajectory is
    given up; null: 1 in the miniature world, otherwise 2."""
    drift: DriftLimits | None = None
    """What a drawing may do to all of the picture that it was drawn onto, measured before the judge
    is asked; null: it is not measured. `{}` measures with the limits that are the defaults."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "min_grade", "min_kept", "min_quality", minimum=1, maximum=5)
        check_range(self, "max_extras", minimum=0)
        check_range(self, "attempts", minimum=1, maximum=16)


@dataclass(frozen=True, kw_only=True)
class PlanSketchSettings(DrawnJobSettings):
    """A data set of trajectories: plans, sketches, inspections, refinements."""

    title: str = "plan-sketch"
    """Name of the data set."""
    steps: Steps = field(default_factory=Steps)
    """How it is split."""
    critiques: Critiques = field(default_factory=Critiques)
    """What is inspected and corrected."""
    gate: Gate = field(default_factory=Gate)
    """Which drawings pass."""

    def __post_init__(self) -> None:
        """Fill in also what is null of steps and gate."""
        super().__post_init__()
        miniature = self.drawing.miniature
        object.__setattr__(self, "steps", self.steps.with_defaults(miniature=miniature))
        if self.gate.attempts is None:
            gate = replace(self.gate, attempts=1 if miniature else 2)
            object.__setattr__(self, "gate", gate)

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides the samples, as plain data."""
        data = super().deciding
        if self.gate.drift is None:
            del data["gate"]["drift"]  # jobs that were begun before there was such a thing go on
        return data

    @property
    def num_units(self) -> int:
        """Prompts, each of which becomes one trajectory."""
        return self.prompts.count
