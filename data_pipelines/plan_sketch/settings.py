"""Settings of `staged data plan-sketch`."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from data_pipelines.ledger import Budget
from data_pipelines.plan_sketch.mistakes import IN_PLANS, MISTAKES, MistakeKind
from staged import settings, strict_json
from staged.backends.diffusers_settings import DiffusersSettings
from staged.backends.lmm_types import LmmSettings
from staged.scene_graph import VARIATIONS, Variation
from staged.shapes.editor import EditorMistakes
from staged.shapes.misbehaviour import Misbehaviour
from staged.shapes.scene import CANVAS_PX, COLORS, KINDS
from staged.shapes.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Where prompts come from."""

    count: int = 1000
    """How many; growing it later adds to the same data set."""
    file: Path | None = None
    """Text file with a prompt on each line; null samples the miniature world's tasks."""
    tasks: dict[str, float] = field(default_factory=dict)
    """Task -> weight, for sampled prompts; tasks that are not named get none. Empty: all alike."""
    split: Literal["train", "test"] = "train"
    """Sampled prompts, detours and mistakes hold nothing that this split leaves to the other."""

    def __post_init__(self) -> None:
        """Check the count and the weights."""
        if self.count < 1:
            raise ValueError(f"count is {self.count}; expected at least 1")
        unknown = self.tasks.keys() - set(TASKS)
        if unknown:
            raise ValueError(
                f"tasks: {', '.join(sorted(unknown))}; expected some of {', '.join(TASKS)}"
            )
        if any(not weight >= 0 for weight in self.tasks.values()):
            raise ValueError(f"tasks: weights must be 0 or more, got {self.tasks}")
        if self.tasks and not any(self.tasks.values()):
            raise ValueError("tasks: every weight is 0; give at least one task some")


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How a scene is split into steps."""

    max_steps: int = 4
    """Most steps of a trajectory, repairs included."""
    late_attributes: float = 0.0
    """Probability that an attribute is given in a later step than its object, which then has any
    value at first."""
    varied: float = 0.2
    """Share of trajectories with a detour: a step draws something different, a later one repairs
    it by a change, a swap, an exchange or a removal."""
    variations: tuple[Variation, ...] = VARIATIONS
    """Which detours."""
    max_objects: int = 5
    """Most objects at any time; scenes with more are rejected."""
    classes: tuple[str, ...] = KINDS
    """What detours and deliberate mistakes may draw instead."""
    attributes: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"color": COLORS})
    """Attribute kind -> values that they may draw instead."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.max_steps < 1 or self.max_objects < 1:
            raise ValueError("max_steps and max_objects must be at least 1")
        _check_shares(self, "late_attributes", "varied")


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
        _check_shares(self, "plans", "sketches", "wrong_plans", "wrong_sketches")
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
class Drawing:
    """How images are drawn."""

    width: int = CANVAS_PX
    """Of every image, in pixels."""
    height: int = CANVAS_PX
    """Of every image, in pixels."""
    foresight: bool = True
    """Tell the editor what the prompt asks for later, so that it leaves room."""
    usd_per_image: float = 0.0
    """Price of one image, for the ledger and the budget."""
    editor: DiffusersSettings | None = None
    """A diffusers pipeline; null draws with the miniature world's editor."""
    mistakes: EditorMistakes = field(default_factory=EditorMistakes)
    """How often the miniature world's editor gets it wrong by itself."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.width < 1 or self.height < 1:
            raise ValueError(f"width {self.width}, height {self.height}: expected at least 1")
        if not self.usd_per_image >= 0:
            raise ValueError(f"usd_per_image is {self.usd_per_image}; expected 0 or more")
        if self.editor is None and (self.width, self.height) != (CANVAS_PX, CANVAS_PX):
            raise ValueError(
                f"{self.width} x {self.height}: the miniature world's canvas is "
                f"{CANVAS_PX} x {CANVAS_PX}; for other sizes name an editor"
            )


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
    drawing: Drawing = field(default_factory=Drawing)
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
        """Check ranges."""
        if self.concurrency < 1 or self.samples_per_shard < 1:
            raise ValueError("concurrency and samples_per_shard must be at least 1")
        if self.prompts.file is None and self.lmm is not None:
            raise ValueError(
                "prompts.file: sampled prompts are for the miniature world; give a file of prompts "
                "for another language model"
            )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the samples: how many, how fast and for how much do not."""
        data = settings.to_dict(replace(self, budget=Budget(), concurrency=1))
        del data["prompts"]["count"]
        for service in (data["lmm"], data["drawing"]["editor"]):
            for name in _NOT_DECIDING & set(service or {}):
                del service[name]
        return hashlib.sha256(strict_json.dumps(data).encode()).hexdigest()


_NOT_DECIDING = frozenset(
    (
        "api_key_env",
        "timeout_s",
        "max_attempts",
        "backoff_s",
        "max_backoff_s",
        "concurrency",
        "requests_per_minute",
        "tokens_per_minute",
        "device",
        "offload",
    )
)


def _check_shares(section: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(section, name) <= 1:
            raise ValueError(f"{name} is {getattr(section, name)}; expected a share in [0, 1]")
