"""How a checkpoint's pictures are drawn: steps, times and guidance, kept beside its weights.

A first sketch, an edit and a refinement want different guidance: what multiplies the pull of a
text also multiplies the error of every region that should stay. What suits a model is a property
of its weights, so it lies in the checkpoint's folder as `flow.yaml`; without that file every
picture is drawn as the published model draws.

Read without torch, for settings and help.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from staged import settings
from staged.ranges import check_finite, check_range

FLOWS = "flow.yaml"
"""Name of the file in a checkpoint's folder."""

MAX_FLOW_STEPS = 100_000

MAX_SHIFT = 1e4
"""Beyond it float32 has no numbers left between the first times."""
MAX_GUIDANCE = 1e4
"""Beyond it velocities overflow."""

MAX_FORECAST = 16.0
"""Beyond it a line through two velocities says nothing."""

Renorm = Literal["global", "channel", "text_channel"]

FlowKind = Literal["first", "edit", "refinement"]
"""What a picture is drawn onto and why: onto nothing, by a plan, or by a correction."""


def check_shift(shift: float) -> None:
    """Require a shift of times that keeps them apart.

    Raises:
        ValueError: It is not positive, not finite, or larger than `MAX_SHIFT`.
    """
    if not 0 < shift <= MAX_SHIFT:
        raise ValueError(
            f"timestep shift {shift}; it must be positive and at most {MAX_SHIFT:g} "
            "(1 leaves times unchanged)"
        )


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Classifier-free guidance over text and, where images stand in context, over those.

    Attributes:
        text_scale: Weight of the last text against its absence; 1 is off.
        image_scale: Weight of the images in context against their absence; 1 is off. It counts
            only beside text guidance: with a text_scale of 1 both are off, as upstream.
        interval: Guidance is on where the shifted time is in (low, high].
        renorm: Over what the guided velocity is held to the length of the unguided one: the whole
            image, each token, or each token after the text step only.
        renorm_min: Least factor of that correction, in [0, 1]; 1 switches it off.
    """

    text_scale: float = 4.0
    image_scale: float = 1.5
    interval: tuple[float, float] = (0.4, 1.0)
    renorm: Renorm = "global"
    renorm_min: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: A scale below 1, an interval out of order, or a renorm_min out of [0, 1].
        """
        scales = (self.text_scale, self.image_scale)
        if not all(1 <= scale <= MAX_GUIDANCE for scale in scales):
            raise ValueError(
                f"guidance scales {scales[0]}, {scales[1]}; give 1 (off) to {MAX_GUIDANCE:g}"
            )
        check_finite(self)
        if not 0 <= self.interval[0] <= self.interval[1]:
            raise ValueError(f"guidance interval {self.interval}; give 0 <= low <= high")
        check_range(self, "renorm_min", minimum=0, maximum=1)

    def at(self, t: float) -> bool:
        """Whether guidance is on at shifted time `t`."""
        return self.text_scale > 1 and self.interval[0] < t <= self.interval[1]

    def num_branches(self, *, has_images: bool) -> int:
        """Contexts that a velocity is made of where guidance is on: 1 to 3.

        Args:
            has_images: Whether images stand in the context; without them their absence is no news.
        """
        if self.text_scale == 1:
            return 1
        return 3 if has_images and self.image_scale > 1 else 2


@dataclass(frozen=True, kw_only=True)
class FlowSettings:
    """How one picture is drawn."""

    num_flow_steps: int = 49
    """Steps of the time grid; the network is asked at each of them that `forecast` leaves."""
    timestep_shift: float = 3.0
    """Bias of the time grid toward noise."""
    guidance: Guidance = field(default_factory=Guidance)
    """Scales, interval and renormalisation."""
    forecast: tuple[float | None, ...] = ()
    """For each step null, where the network is asked, or how far the line through the velocities
    that were asked for last is followed to this step's time: 1 all the way, 0 not at all. Empty
    asks at every step. `staged tune-steps` fits it to a checkpoint."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: A value is out of range.
        """
        check_range(self, "num_flow_steps", minimum=1, maximum=MAX_FLOW_STEPS)
        check_shift(self.timestep_shift)
        if not self.forecast:
            return
        if len(self.forecast) != self.num_flow_steps:
            raise ValueError(
                f"forecast has {len(self.forecast)} entries for {self.num_flow_steps} flow steps; "
                "give one for each, or none"
            )
        if self.forecast[0] is not None:
            raise ValueError("forecast: the first step has none before it; let it be null")
        far = [one for one in self.forecast if one is not None and not abs(one) <= MAX_FORECAST]
        if far:
            raise ValueError(f"forecast: {far[0]}; give -{MAX_FORECAST:g} to {MAX_FORECAST:g}")

    @property
    def num_evaluations(self) -> int:
        """Steps at which the network is asked."""
        return self.num_flow_steps - sum(one is not None for one in self.forecast)

    def otherwise(self, **changes: Any) -> FlowSettings:
        """Change it, and ask at every step then: a forecast is fitted to one grid and one guidance.

        Raises:
            ValueError: A value is out of range.
        """
        return replace(self, **({"forecast": ()} | changes)) if changes else self


@dataclass(frozen=True, kw_only=True)
class Flows:
    """How each kind of picture is drawn."""

    first: FlowSettings = field(default_factory=FlowSettings)
    """Onto nothing: the only picture of a one-shot prompt, the first sketch of a staged one."""
    edit: FlowSettings = field(default_factory=FlowSettings)
    """Onto a picture, by a prompt or a plan."""
    refinement: FlowSettings = field(default_factory=FlowSettings)
    """Onto a picture, by the correction that an inspection asked for."""

    def of(self, drawn: FlowKind) -> FlowSettings:
        """The settings of one kind."""
        flow: FlowSettings = getattr(self, drawn)
        return flow

    def each(self, change: Callable[[FlowSettings], FlowSettings]) -> Flows:
        """The same with every kind's settings changed."""
        return Flows(
            first=change(self.first), edit=change(self.edit), refinement=change(self.refinement)
        )

    def for_other_weights(self) -> Flows:
        """The same without forecasts, which are fitted to weights."""
        return self.each(lambda flow: flow.otherwise(forecast=()))

    def facts(self) -> dict[str, Any]:
        """Plain values under `kind.setting`, such as `edit.num_flow_steps`: what to compare by."""
        return {
            f"{kind}.{name}": value
            for kind, flow in settings.to_dict(self).items()
            for name, value in flow.items()
            # Only where there is one, so that what was drawn before there could be goes on.
            if name != "forecast" or value
        }

    @property
    def num_evaluations(self) -> int:
        """Network evaluations of the full branch that any picture takes at most."""
        return max(flow.num_evaluations for flow in (self.first, self.edit, self.refinement))

    def num_branches(self, *, has_images: bool) -> int:
        """Contexts that a velocity of any picture is made of, at most."""
        kinds = (flow.guidance for flow in (self.first, self.edit, self.refinement))
        return max(guidance.num_branches(has_images=has_images) for guidance in kinds)


def read_flows(folder: Path) -> Flows:
    """What a checkpoint's folder says, or the published model's ways.

    Raises:
        ValueError: The file is no YAML, or says something that has no meaning; by its keys.
    """
    path = folder / FLOWS
    return settings.load(Flows, path) if path.is_file() else Flows()


def write_flows(flows: Flows, folder: Path) -> None:
    """Put them beside a checkpoint's weights."""
    settings.save_resolved(flows, folder / FLOWS)
