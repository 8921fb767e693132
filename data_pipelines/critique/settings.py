"""Settings of `staged data critique`."""

from dataclasses import dataclass, field
from typing import Any

from data_pipelines.drawing import DrawingSettings
from data_pipelines.drift.limits import DriftLimits
from data_pipelines.job_settings import DrawnJobSettings
from staged.generate.settings import DrawSettings
from staged.ranges import check_range
from staged.shapes.players.editor import NO_MISTAKES


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """Who takes over where the checkpoint went wrong, and where it might have."""

    edits_by_editor: float = 0.25
    """Share of sketches after the first that the editor draws, onto what the checkpoint drew
    before: right edits of pictures such as the checkpoint meets."""
    refined_by_model: float = 0.25
    """Share of first refinements of a sketch that the checkpoint tries itself. What it gets wrong
    is refused again, and then the editor draws."""

    drift: DriftLimits | None = None
    """What the editor may do to all of the picture that it draws onto, measured before the judge is
    asked; what drifted is laid back, or drawn again as often as `generator.max_attempts` allows.
    Null: it is not measured. `{}` measures with the limits that are the defaults."""

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
class CritiqueSettings(DrawnJobSettings):
    """A data set of critiques: a checkpoint's own steps, and what is wrong with them.

    The language model is the judge, the editor draws what a sketch should have been, and the
    budget is theirs.
    """

    title: str = "critique"
    """Name of the data set."""
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

    def __post_init__(self) -> None:
        """Check also that the checkpoint is rolled out as the judge needs it."""
        super().__post_init__()
        check_range(self, "rollouts", minimum=1)
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

    @property
    def num_units(self) -> int:
        """Rollouts, each of which becomes one trajectory."""
        return self.prompts.count * self.rollouts

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides the samples, as plain data."""
        data = super().deciding
        del data["generator"]["device"]
        # Jobs that were begun before there were such things go on.
        if self.generator.quantization == "none":
            del data["generator"]["quantization"]
        if self.corrections.drift is None:
            del data["corrections"]["drift"]
        return data
