"""Sketches that are drawn again where they are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from staged.generate.settings import DrawSettings
from staged.loops.policy import Policy
from staged.loops.redrawing import RedrawingSketcher
from staged.loops.roles import Roles
from staged.loops.staged import StagedLoop
from staged.roles import Pixels, Preview, RoleError, StepRequest, TextPreview
from staged.trajectory import (
    ImageRef,
    Inspection,
    Plan,
    Sketch,
    TextStep,
    Trajectory,
)

COST = 10
ACCEPT = Inspection(target="sketch", verdict="accept", critique="it fits")
REVISE = Inspection(target="sketch", verdict="revise", critique="it does not fit")


class Artist:
    """Draws a picture for each seed, notes what was asked, and fails where told."""

    num_flow_steps, num_at_once = COST, 8

    def __init__(self, fails: Callable[[int], bool] = lambda call: False) -> None:
        self.calls: list[list[StepRequest]] = []
        self._fails = fails

    def draw(
        self, requests: Sequence[StepRequest], on_preview: Preview | None = None
    ) -> list[Sketch | RoleError]:
        self.calls.append(list(requests))
        drawn: list[Sketch | RoleError] = []
        for row, request in enumerate(requests):
            pixels = np.full((4, 4, 3), request.seed % 251, np.uint8)
            if on_preview is not None:
                on_preview(row, 1, pixels)
            failed = self._fails(len(self.calls))
            image = ImageRef.from_array(pixels)
            drawn.append(
                RoleError("refusal")
                if failed
                else Sketch(image=image, seed=request.seed, num_flow_steps=COST)
            )
        return drawn


class Critic:
    """Refuses the first sketches of each prompt, as many as its words say; or fails."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def write(
        self, requests: Sequence[StepRequest], on_text: TextPreview | None = None
    ) -> list[TextStep | RoleError]:
        said: list[TextStep | RoleError] = []
        for request in requests:
            assert request.moves == ("inspect sketch",)
            prompt = request.trajectory.prompt
            if prompt == "mute":
                said.append(RoleError("timeout"))
                continue
            self.seen[prompt] = self.seen.get(prompt, 0) + 1
            said.append(REVISE if self.seen[prompt] <= int(prompt) else ACCEPT)
        return said


def asked(*prompts: str) -> list[StepRequest]:
    plan = Plan(instruction="add a star", description="a star")
    return [
        StepRequest(
            trajectory=Trajectory(prompt=prompt, steps=(plan,)), moves=("sketch",), seed=7 + n
        )
        for n, prompt in enumerate(prompts)
    ]


def test_only_what_is_refused_is_drawn_again_and_all_drawings_are_counted() -> None:
    artist = Artist()
    sketcher = RedrawingSketcher(artist, Critic(), max_redraws=2)
    results = sketcher.draw(asked("0", "1", "2", "9", "mute"))
    assert [len(call) for call in artist.calls] == [5, 3, 2]
    spent = [result.num_flow_steps for result in results if isinstance(result, Sketch)]
    assert spent == [COST, 2 * COST, 3 * COST, 3 * COST, COST]
    seeds = [request.seed for call in artist.calls for request in call]
    assert len(set(seeds)) == len(seeds)
    # What comes back is the drawing that was seen last.
    last = {request.trajectory.prompt: request.seed for call in artist.calls for request in call}
    assert [result.seed for result in results if isinstance(result, Sketch)] == list(last.values())
    assert sketcher.num_flow_steps == 3 * COST


def test_a_prompt_is_drawn_again_alike_in_any_company() -> None:
    together = RedrawingSketcher(Artist(), Critic(), max_redraws=2).draw(asked("2", "0", "1"))
    for request, result in zip(asked("2", "0", "1"), together, strict=True):
        assert RedrawingSketcher(Artist(), Critic(), max_redraws=2).draw([request]) == [result]


def test_previews_belong_to_the_trajectory_that_is_drawn_again() -> None:
    shown: list[int] = []

    def show(row: int, step: int, pixels: Pixels) -> None:
        shown.append(row)

    RedrawingSketcher(Artist(), Critic(), max_redraws=1).draw(asked("0", "1", "00", "01"), show)
    assert shown == [0, 1, 2, 3, 1, 3]


def test_a_failure_is_the_loops_to_count() -> None:
    artist = Artist(lambda call: call == 2)
    [result] = RedrawingSketcher(artist, Critic(), max_redraws=2).draw(asked("2"))
    assert isinstance(result, RoleError) and len(artist.calls) == 2


def test_what_was_read_of_refused_sketches_is_let_go() -> None:
    """It kept the whole context of its trajectory, which goes on without it."""

    class Remembering(Critic):
        def __init__(self) -> None:
            super().__init__()
            self.released: list[Trajectory] = []

        def release(self, trajectory: Trajectory) -> None:
            self.released.append(trajectory)

    artist, critic = Artist(), Remembering()
    results = RedrawingSketcher(artist, critic, max_redraws=2).draw(asked("0", "1", "2", "9"))
    # All that were drawn but those that were given back.
    given = {result.seed for result in results if isinstance(result, Sketch)}
    drawn = {request.seed for call in artist.calls for request in call}
    let_go = [t.last_sketch.seed for t in critic.released if t.last_sketch is not None]
    assert sorted(map(str, let_go)) == sorted(map(str, drawn - given))


class Director:
    """Plans once, draws, and stops."""

    def choose(self, requests: Sequence[StepRequest]) -> list[tuple[str, ...]]:
        return [
            (next(m for m in ("stop", "plan", "sketch") if m in request.moves),)
            for request in requests
        ]

    def write(
        self, requests: Sequence[StepRequest], on_text: TextPreview | None = None
    ) -> list[TextStep | RoleError]:
        return [Plan(instruction="add a star", description="a star") for _ in requests]


@pytest.mark.parametrize(("limit", "drawings"), [(30, 3), (29, 0), (300, 3)])
def test_the_limit_on_flow_steps_holds_for_refused_drawings_too(limit: int, drawings: int) -> None:
    artist, player, critic = Artist(), Director(), Critic()
    sketcher = RedrawingSketcher(artist, critic, max_redraws=2)
    roles = Roles(
        director=player, planner=player, sketcher=sketcher, inspector=critic, refiner=player
    )  # type: ignore[arg-type]
    policy = Policy(max_rounds=1, max_flow_steps=limit, inspect_sketch="never")
    if not drawings:
        with pytest.raises(ValueError, match="30 flow steps, max_flow_steps is 29"):
            StagedLoop(roles, policy)
        return
    [trajectory] = StagedLoop(roles, policy).run(["9"], [0])
    assert trajectory.complete and len(artist.calls) == drawings
    assert trajectory.num_flow_steps == drawings * COST <= limit


def test_pictures_of_a_folder_depend_on_it_only_where_it_can_refuse() -> None:
    def decides(**changes: object) -> dict[str, object]:
        return DrawSettings(checkpoint="miniature:staged", **changes).decides()  # type: ignore[arg-type]

    assert decides(max_redraws=2)["max_redraws"] == 2
    for unable in ({"mode": "one-shot"}, {"inspect_sketch": "never"}):
        assert decides(max_redraws=2, **unable) == decides(**unable)
    assert "max_redraws" not in decides()
    with pytest.raises(ValueError, match="max_redraws"):
        DrawSettings(checkpoint="miniature:staged", max_redraws=-1)
