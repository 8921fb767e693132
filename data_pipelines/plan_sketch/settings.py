"""Settings of `staged data plan-sketch`."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from data_pipelines.plan_sketch import everyday
from data_pipelines.plan_sketch.mistakes import IN_PLANS, MISTAKES, MistakeKind
from staged import settings, strict_json
from staged.backends.diffusers.settings import DiffusersSettings
from staged.backends.lmm.types import LmmSettings
from staged.command_line import MAX_SEED
from staged.jobs.budget import Budget
from staged.ranges import check_range
from staged.scene_graph import VARIATIONS, Variation, Vocabulary
from staged.shapes.players.editor import EditorMistakes
from staged.shapes.players.misbehaviour import SHAPES_LMM, Misbehaviour
from staged.shapes.tasks import TASKS
from staged.shapes.world.scene import CANVAS_PX, COLORS, KINDS

Section = TypeVar("Section", "DrawingSettings", "Steps")
_SIDE_PX = 1024
"""Kontext, like most editors, was trained at one megapixel."""


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
        if self.file is not None and (self.tasks or self.split != "train"):
            raise ValueError(
                f"tasks and split are for sampled prompts, and these come from {self.file}; leave "
                "them out, or the file"
            )
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
    """How a scene is split into steps.

    Null is what suits the job: the miniature world's own words, or those of everyday things.
    """

    max_steps: int | None = None
    """Most steps of a trajectory, repairs included; null: 4 in the miniature world, otherwise 5."""
    late_attributes: float = 0.0
    """Probability that an attribute is given in a later step than its object, which then has any
    value at first."""
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
        check_range(self, "late_attributes", "varied", minimum=0, maximum=1)

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
class DrawingSettings:
    """How images are drawn."""

    width: int | None = None
    """Of every image, in pixels; null: the miniature world's canvas, or 1024 for an editor."""
    height: int | None = None
    """Of every image, in pixels; null as for the width."""
    foresight: bool | None = None
    """Tell the editor what the prompt asks for later, so that it leaves room; null: only the
    miniature world's, which does not draw it at once."""
    usd_per_image: float = 0.0
    """Price of one image, for the ledger and the budget."""
    editor: DiffusersSettings | None = None
    """A diffusers pipeline; null draws with the miniature world's editor."""
    mistakes: EditorMistakes = field(default_factory=EditorMistakes)
    """How often the miniature world's editor gets it wrong by itself."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("width", "height"):
            value = getattr(self, name)
            if value is None:
                continue
            if value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
            if self.editor is None and value != CANVAS_PX:
                raise ValueError(
                    f"{name} is {value}: the miniature world's canvas is {CANVAS_PX} x "
                    f"{CANVAS_PX}; for other sizes name an editor"
                )
            if self.editor and self.editor.pipeline == "FluxKontextPipeline" and value % 16:
                raise ValueError(
                    f"{name} is {value}; FLUX.1 Kontext draws multiples of 16, such as "
                    f"{max(round(value / 16), 1) * 16}"
                )
        check_range(self, "usd_per_image", minimum=0)
        if self.editor is not None and self.mistakes != EditorMistakes():
            raise ValueError(
                "mistakes are the miniature world's editor's; leave them out where another one "
                f"draws ({self.editor.model})"
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
        self._check_worlds()
        miniature = self.drawing.editor is None
        side = CANVAS_PX if miniature else _SIDE_PX
        # Frozen from here on: these are defaults that hang on another section.
        object.__setattr__(
            self,
            "drawing",
            _filled(self.drawing, width=side, height=side, foresight=miniature),
        )
        object.__setattr__(
            self,
            "steps",
            _filled(
                self.steps,
                max_steps=4 if miniature else 5,
                max_objects=5 if miniature else 12,
                classes=KINDS if miniature else everyday.CLASSES,
                attributes={"color": COLORS} if miniature else dict(everyday.ATTRIBUTES),
            ),
        )

    def _check_worlds(self) -> None:
        """Check that language model, editor and prompts are all of the miniature world, or none."""
        shapes_lmm = self.lmm is None or self.lmm.model == SHAPES_LMM
        if self.drawing.editor is not None and shapes_lmm:
            raise ValueError(
                f"lmm: the miniature world's language model knows shapes only, and "
                f"{self.drawing.editor.model} draws; name the model that reads, plans and judges "
                "(lmm.model, lmm.base_url)"
            )
        if self.lmm is not None and not shapes_lmm:
            if self.drawing.editor is None:
                raise ValueError(
                    f"drawing.editor: {self.lmm.model} plans, and the miniature world's editor "
                    "draws shapes only; name an editor ({} takes FLUX.1 Kontext)"
                )
            if self.misbehaviour != Misbehaviour():
                raise ValueError(
                    "misbehaviour is the miniature world's language model's; leave it out where "
                    f"another one is asked ({self.lmm.model})"
                )
            if self.prompts.file is None:
                raise ValueError(
                    "prompts.file: sampled prompts are for the miniature world; give a file of "
                    "prompts for another language model"
                )

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
        for service in (data["lmm"], data["drawing"]["editor"]):
            for name in NOT_DECIDING & set(service or {}):
                del service[name]
        return data


NOT_DECIDING = frozenset(
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
"""Settings of services that change neither what is asked for nor what comes back."""


def _filled(section: Section, **defaults: Any) -> Section:
    """Return a section with defaults where it has null."""
    return replace(section, **{k: v for k, v in defaults.items() if getattr(section, k) is None})
