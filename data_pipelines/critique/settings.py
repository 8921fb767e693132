"""Settings of `staged data critique`."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_pipelines.drawing import DrawingSettings
from data_pipelines.prompts import Prompts
from data_pipelines.reader import check_worlds
from staged import settings, strict_json
from staged.backends.deciding import decisive
from staged.backends.lmm.types import LmmSettings
from staged.command_line import MAX_SEED
from staged.generate.settings import DrawSettings
from staged.jobs.budget import Budget
from staged.ranges import check_range
from staged.shapes.players.editor import NO_MISTAKES
from staged.shapes.players.misbehaviour import Misbehaviour


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """Who takes over where the checkpoint went wrong, and where it might have."""

    edits_by_editor: float = 0.25
    """Share of sketches after the first that the editor draws, onto what the checkpoint drew
    before: right edits of pictures such as the checkpoint meets."""
    refined_by_model: float = 0.25
    """Share of first refinements of a sketch that the checkpoint tries itself. What it gets wrong
    is refused again, and then the editor draws."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "edits_by_editor", "refined_by_model", minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Which steps are supervised.

    What is wrong never is; what judge and editor wrote and drew in its place always.
    """

    own_plans: bool = True
    """Plans of the checkpoint that fit the prompt and bring it nearer."""
    own_sketches: bool = False
    """Sketches of the checkpoint that show their plans; to learn from its own pictures blurs
    them."""
    accepted_plans: float | None = 0.454
    """Share of acceptances among the inspections of plans, the rest being refusals; the published
    subset has 6,905 of 15,201. What is too many is left out; null keeps what comes."""
    accepted_sketches: float | None = 0.333
    """The same for sketches: 5,000 of 15,000."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("accepted_plans", "accepted_sketches"):
            if getattr(self, name) is not None:
                check_range(self, name, minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class CritiqueSettings:
    """A data set of critiques: a checkpoint's own steps, and what is wrong with them."""

    title: str = "critique"
    """Name of the data set."""
    seed: int = 0
    """Decides prompts, noise, and who takes which step."""
    prompts: Prompts = field(default_factory=Prompts)
    """What is asked for."""
    rollouts: int = 1
    """Trajectories of each prompt."""
    generator: DrawSettings = field(
        default_factory=lambda: DrawSettings(checkpoint="miniature:staged", max_rounds=5)
    )
    """The checkpoint that is rolled out, and how it draws."""
    weights: str | None = None
    """SHA-256 of its tensors. Found and kept when the job begins, so that a job never goes on with
    others."""
    corrections: Corrections = field(default_factory=Corrections)
    """Who takes over."""
    learned: Learned = field(default_factory=Learned)
    """What is supervised."""
    drawing: DrawingSettings = field(default_factory=lambda: DrawingSettings(mistakes=NO_MISTAKES))
    """The image editor that draws what a sketch should have been."""
    lmm: LmmSettings | None = None
    """The judge: a language model that sees; null asks the miniature world's, in this process."""
    wording: dict[str, Path] = field(default_factory=dict)
    """Kind of request -> file of yours that takes the place of our words: `version: …`, an empty
    line, and what the language model is told."""
    words: dict[str, str] | None = None
    """Version of the words of each kind of request. Found and kept when the job begins, so that a
    job never goes on in others."""
    misbehaviour: Misbehaviour = field(default_factory=Misbehaviour)
    """How the miniature world's language model lets us down."""
    budget: Budget = field(default_factory=Budget)
    """What the job may spend on judge and editor."""
    concurrency: int = 16
    """Trajectories in the making at a time; does not change the result."""
    samples_per_shard: int = 1000
    """Most samples of a shard."""

    def __post_init__(self) -> None:
        """Check ranges, and that nothing of the miniature world is in a real job.

        What is null is filled in, so that the saved settings say what was used.
        """
        check_range(self, "seed", minimum=0, maximum=MAX_SEED)
        check_range(self, "rollouts", "concurrency", "samples_per_shard", minimum=1)
        if self.generator.mode != "staged":
            raise ValueError(f"generator.mode is {self.generator.mode!r}; rollouts are staged")
        for name in ("inspector", "inspect_plan", "inspect_sketch"):
            if getattr(self.generator, name) != "model":
                raise ValueError(
                    f"generator.{name}: the judge (lmm) inspects every plan and every sketch; "
                    "leave it out"
                )
        if self.generator.max_refinements < 1:
            raise ValueError(
                "generator.max_refinements is 0: nothing could be corrected; give at least 1"
            )
        check_worlds(
            lmm=self.lmm,
            drawing=self.drawing,
            prompts=self.prompts,
            misbehaviour=self.misbehaviour,
        )
        # Frozen from here on: these are defaults that hang on another section.
        object.__setattr__(self, "drawing", self.drawing.with_defaults())

    @property
    def num_units(self) -> int:
        """Rollouts, each of which becomes one trajectory."""
        return self.prompts.count * self.rollouts

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the samples: how many, how fast and for how much do not."""
        return hashlib.sha256(strict_json.dumps(self.deciding).encode()).hexdigest()

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides the samples, as plain data."""
        data = settings.to_dict(replace(self, budget=Budget(), concurrency=1))
        del data["prompts"]["count"]
        del data["generator"]["device"], data["wording"]  # `words` has what is in the files
        for section, name in ((data, "lmm"), (data["drawing"], "editor")):
            section[name] = section[name] and decisive(section[name])
        return data
