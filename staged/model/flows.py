"""How a checkpoint's pictures are drawn: steps, times and guidance, kept beside its weights.

A first sketch, an edit and a refinement want different guidance: what multiplies the pull of a
text also multiplies the error of every region that should stay. What suits a model is a property
of its weights, so it lies in the checkpoint's folder as `flow.yaml`; without that file every
picture is drawn as the published model draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from staged import settings
from staged.model.flow import Guidance, check_shift
from staged.ranges import check_range

FLOWS = "flow.yaml"
"""Name of the file in a checkpoint's folder."""

MAX_FLOW_STEPS = 100_000

FlowKind = Literal["first", "edit", "refinement"]
"""What a picture is drawn onto and why: onto nothing, by a plan, or by a correction."""


@dataclass(frozen=True, kw_only=True)
class FlowSettings:
    """How one picture is drawn."""

    num_flow_steps: int = 49
    """Network evaluations of the full branch."""
    timestep_shift: float = 3.0
    """Bias of the time grid toward noise."""
    guidance: Guidance = field(default_factory=Guidance)
    """Scales, interval and renormalisation."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: A value is out of range.
        """
        check_range(self, "num_flow_steps", minimum=1, maximum=MAX_FLOW_STEPS)
        check_shift(self.timestep_shift)


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

    def facts(self) -> dict[str, Any]:
        """Plain values under `kind.setting`, such as `edit.num_flow_steps`: what to compare by."""
        return {
            f"{kind}.{name}": value
            for kind, flow in settings.to_dict(self).items()
            for name, value in flow.items()
        }

    @property
    def num_flow_steps(self) -> int:
        """Network evaluations that any picture takes at most."""
        return max(flow.num_flow_steps for flow in (self.first, self.edit, self.refinement))

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
