"""Settings of `staged data plan-sketch`."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from data_pipelines.drawing import DrawingSettings
from data_pipelines.plan_sketch import everyday
from data_pipelines.plan_sketch.mistakes import IN_PLANS, MISTAKES, MistakeKind
from data_pipelines.prompts import Prompts
from data_pipelines.reader import check_worlds
from staged import settings, strict_json
from staged.backends.deciding import decisive
from staged.backends.lmm.types import LmmSettings
from staged.command_line import MAX_SEED
from staged.jobs.budget import Budget
from staged.ranges import check_range
from staged.scene_graph import VARIATIONS, Variation, Vocabulary
from staged.shapes.players.misbehaviour import Misbehaviour
from staged.shapes.world.scene import COLORS, KINDS


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How a scene is split into steps.

    Null is what suits the job: the miniature world's own words, or those of everyday things.
    """

    max_steps: int | None = None
    """Most steps of a trajectory, repairs included; null: 4 in the miniature world, otherwise 5."""
    late_attributes: float = 0.0
    """Probability that an attribute is given in a later step than its object, which then has any
    value at first."""
    grouped: float = 0.0
    """Probability that what could be a step of its own comes with the step before it: 0 draws one
    thing after the other, 1 everything at once."""
    varied: float = 0.2
    """Share of trajectories with a detour: a step draws something different, a later one repairs
    it by a change, a swap, an exchange or a removal."""
    variations: tuple[Variation, ...] = VARIATIONS
    """Which detours."""
    max_objects: int | None = None
    """Most objects at any time; scenes with more are rejected; null: 5 in the miniature world,
    otherwise 12."""
    classes: tuple[str, ...] | None = None
    """What detours and deliberate mistakes may draw instead; null: the miniature world's shapes, or
    everyday things."""
    attributes: dict[str, tuple[str, ...]] | None = None
    """Attribute kind -> values that they may draw instead; null: colours."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "max_steps", "max_objects", minimum=1)
        check_range(self, "late_attributes", "grouped", "varied", minimum=0, maximum=1)

    def with_defaults(self, *, miniature: bool) -> "Steps":
        """Fill in what is null, by whose world it is."""
        defaults: dict[str, Any] = {
            "max_steps": 4 if miniature else 5,
            "max_objects": 5 if miniature else 12,
            "classes": KINDS if miniature else everyday.CLASSES,
            "attributes": {"color": COLORS} if miniature else dict(everyday.ATTRIBUTES),
        }
        return replace(self, **{k: v for k, v in defaults.items() if getattr(self, k) is None})

    @property
    def limits(self) -> tuple[int, int]:
        """Most steps and most objects, of settings that are part of a job."""
        assert self.max_steps is not None and self.max_objects is not None
        return self.max_steps, self.max_objects

    @property
    def vocabulary(self) -> Vocabulary:
        """What may be drawn instead, of settings that are part of a job."""
        assert self.classes is not None and self.attributes is not None
        return Vocabulary(classes=self.classes, attributes=self.attributes)


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
class PlanSketchSettings:
    """A data set of trajectories: plans, sketches, inspections, refinements."""

    title: str = "plan-sketch"
    """Name of the data set."""
    seed: int = 0
    """Decides prompts, steps, mistakes and noise."""
    prompts: Prompts = field(default_factory=Prompts)
    """What is asked for."""
    steps: Steps = field(default_factory=Steps)
    """How it is split."""
    critiques: Critiques = field(default_factory=Critiques)
    """What is inspected and corrected."""
    drawing: DrawingSettings = field(default_factory=DrawingSettings)
    """Who draws, and how."""
    lmm: LmmSettings | None = None
    """The language model; null asks the miniature world's, in this process."""
    misbehaviour: Misbehaviour = field(default_factory=Misbehaviour)
    """How the miniature world's language model lets us down."""
    budget: Budget = field(default_factory=Budget)
    """What the job may spend."""
    concurrency: int = 16
    """Trajectories in the making at a time; does not change the result."""
    samples_per_shard: int = 1000
    """Most samples of a shard."""

    def __post_init__(self) -> None:
        """Check ranges, and that nothing of the miniature world is in a real job.

        What is null is filled in, so that the saved settings say what was used.
        """
        check_range(self, "seed", minimum=0, maximum=MAX_SEED)
        if self.concurrency < 1 or self.samples_per_shard < 1:
            raise ValueError("concurrency and samples_per_shard must be at least 1")
        check_worlds(
            lmm=self.lmm,
            drawing=self.drawing,
            prompts=self.prompts,
            misbehaviour=self.misbehaviour,
        )
        miniature = self.drawing.editor is None
        # Frozen from here on: these are defaults that hang on another section.
        object.__setattr__(self, "drawing", self.drawing.with_defaults())
        object.__setattr__(self, "steps", self.steps.with_defaults(miniature=miniature))

    @property
    def num_units(self) -> int:
        """Prompts, each of which becomes one trajectory."""
        return self.prompts.count

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the samples: how many, how fast and for how much do not."""
        return hashlib.sha256(strict_json.dumps(self.deciding).encode()).hexdigest()

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides the samples, as plain data."""
        data = settings.to_dict(replace(self, budget=Budget(), concurrency=1))
        del data["prompts"]["count"]
        data["lmm"] = data["lmm"] and decisive(data["lmm"])
        data["drawing"]["editor"] = data["drawing"]["editor"] and decisive(
            data["drawing"]["editor"]
        )
        return data
