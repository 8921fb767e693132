"""What a client of `/v1/trajectories` sends and gets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from staged.command_line import MAX_SEED
from staged.generate.settings import MAX_REDRAWS
from staged.loops.policy import Inspect, Mode
from staged.trajectory import MAX_STEPS

_MAX_PART = 2**31
_Count = Annotated[int, Field(ge=1, le=_MAX_PART)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """A body whose fields are all known."""

    model_config = ConfigDict(extra="forbid")


class DrawOptions(Strict):
    """How to draw; what is left out is as the server is set up."""

    mode: Mode | None = Field(None, description="In stages, at once, or answer a question.")
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = Field(
        None, description="Of everything drawn at random; the same seed gives the same pictures."
    )
    width: _Count | None = Field(None, description="Of a picture in pixels; with `height`.")
    height: _Count | None = Field(None, description="Of a picture in pixels; with `width`.")
    num_flow_steps: _Count | None = Field(None, description="Network evaluations a sketch.")
    max_flow_steps: _Count | None = Field(None, description="Network evaluations in all, at most.")
    max_rounds: _Count | None = Field(None, description="Plans that are sketched, at most.")
    max_refinements: Annotated[int, Field(ge=0, le=_MAX_PART)] | None = Field(
        None, description="Of one plan, and of one round's sketch, at most."
    )
    max_redraws: Annotated[int, Field(ge=0, le=MAX_REDRAWS)] | None = Field(
        None, description="Of a sketch that is refused, before it is refined, at most."
    )
    inspect_plan: Inspect | None = Field(None, description="Whether plans are inspected.")
    inspect_sketch: Inspect | None = Field(None, description="Whether sketches are.")
    guidance_scale: _Number | None = Field(None, description="Over the last text; 1 is off.")
    image_guidance_scale: _Number | None = Field(
        None, description="Over images in context, beside the text; 1 is off."
    )
    temperature: _Number | None = Field(None, description="Of text; 0 takes the likeliest.")
    max_text_tokens: _Count | None = Field(None, description="Of a text.")
    think: bool | None = Field(None, description="Write a thought before drawing at once.")
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="From the request to its end, in seconds."
    )


class Watching(Strict):
    """How a trajectory is watched."""

    stream: bool = Field(
        True, description="Answer with its events; otherwise at once, with what is known by then."
    )
    on_disconnect: Literal["cancel", "continue"] = Field(
        "cancel",
        description="What becomes of it once nobody has read its events for a while. Without "
        "`stream` it goes on.",
    )


class TrajectoryRequest(DrawOptions, Watching):
    """A trajectory to draw."""

    prompt: str = Field(description="What to draw, what to change, or what to answer.")
    images: list[str] = Field(
        default_factory=list, description="Input images, as data URLs or plain base64."
    )


class EditedPlan(Strict):
    """A plan by hand."""

    step: Literal["plan"]
    instruction: str = Field(description="The next change.")
    description: str = Field(description="The whole scene after it.")


class EditedInspection(Strict):
    """A verdict by hand."""

    step: Literal["inspection"]
    target: Literal["plan", "sketch"]
    verdict: Literal["accept", "revise"]
    critique: str = Field(description="What was seen.")


class EditedRefinement(Strict):
    """A correction by hand."""

    step: Literal["refinement"]
    instruction: str = Field(description="The correction.")


EditedStep = Annotated[
    EditedPlan | EditedInspection | EditedRefinement, Field(discriminator="step")
]


class ForkRequest(DrawOptions, Watching):
    """A trajectory that goes on from another's step."""

    at: Annotated[int, Field(ge=0, le=MAX_STEPS)] = Field(
        description="How many of its steps are kept."
    )
    step: EditedStep | None = Field(None, description="What comes next instead, by hand.")


class TrajectorySummary(BaseModel):
    """A trajectory in a list."""

    id: str
    object: Literal["trajectory"]
    kind: str = Field(description="Of the request: trajectory, image, edit or chat.")
    created: float = Field(description="When it was asked for, in seconds since 1970.")
    prompt: str = Field(description="As it was given.")
    seed: int
    status: Literal["running", "complete", "failed"]
    reason: str | None = Field(description="Why it failed, such as `cancelled` or `deadline`.")
    parent: str | None = Field(description="The trajectory that it was forked from.")
    num_given: int = Field(description="Steps that it was given: its parent's, and one by hand.")


class TrajectoryObject(TrajectorySummary):
    """A trajectory as far as it has come."""

    read_as: str = Field(description="The prompt as the model read it.")
    asked: dict[str, Any] = Field(description="Settings that the request named.")
    inputs: list[str] = Field(description="Paths of input images.")
    steps: list[dict[str, Any]] = Field(description="In order; a sketch's image is a path.")
    detail: str | None = Field(description="More on why it failed.")
    ended_by: str | None = Field(description="`model` or `policy`, once it is complete.")
    provenance: dict[str, Any] = Field(description="Models, seeds, costs; once it has ended.")
    last_event: int = Field(description="Number of the newest event.")


class TrajectoryList(BaseModel):
    """Trajectories, newest first."""

    object: Literal["list"] = "list"
    data: list[TrajectorySummary]
    next_before: float | None = Field(description="`before` of the next page; null on the last.")
