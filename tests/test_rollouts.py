"""Trajectories that join, leave and fail between any two calls, and what that does to others."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import tiny
from artist import POLICY, Artist

from staged.backends.bagel import BagelPlayer
from staged.backends.bagel_settings import BagelSettings
from staged.backends.editing import EditingSketcher
from staged.backends.reading import parts_of
from staged.engine.engine import Engine
from staged.loops.events import (
    Event,
    Failed,
    Previewed,
    SketchDrawn,
    Stopped,
    TextPreviewed,
)
from staged.loops.policy import Policy
from staged.loops.redrawing import RedrawingSketcher
from staged.loops.roles import Roles
from staged.loops.rollouts import STEPS_BETWEEN_TEXTS, LostRollout, Rollouts
from staged.loops.staged import StagedLoop
from staged.model.flows import Flows, FlowSettings, Guidance
from staged.protocol import write
from staged.roles import RoleError, StepRequest
from staged.trajectory import Sketch, Stop, Trajectory, moves


def join(rollouts: Rollouts, player: Artist, prompt: str, seed: int = 1, **more: Any) -> int:
    return rollouts.join(prompt, seed=seed, roles=Roles.of(player, "a"), policy=POLICY, **more)


def finish(rollouts: Rollouts) -> dict[int, Trajectory]:
    done: dict[int, Trajectory] = {}
    while rollouts:
        done |= dict(rollouts.advance())
    return done


def alone(prompt: str, seed: int) -> Trajectory:
    [trajectory] = StagedLoop(Roles.of(Artist(), "a"), POLICY).run([prompt], [seed])
    return trajectory


# --- joining ------------------------------------------------------------------------------------


def test_who_joins_plans_while_others_draw_and_inspect() -> None:
    player, rollouts = Artist(), Rollouts(room=9)
    for name in "abcdef":
        join(rollouts, player, name)
    while player.calls[-1:] == [] or player.calls[-1][0] != "draw":
        rollouts.advance()
    drawn = player.calls[-1][1]
    join(rollouts, player, "late")
    before = len(player.calls)
    while not any("late" in prompts for kind, prompts in player.calls if kind == "write"):
        rollouts.advance()
    between = [kind for kind, prompts in player.calls[before:] if "late" not in prompts]
    # Those who stood in line to draw went first, and nobody else.
    assert len(drawn) == 2 and between.count("draw") <= 2
    assert finish(rollouts)[6] == alone("late", 1)


def test_pieces_of_a_kind_share_a_call_and_draws_as_many_as_gain_from_it() -> None:
    player, rollouts = Artist(), Rollouts(room=8)
    for name in "abcdefgh":
        join(rollouts, player, name, seed=4)
    finish(rollouts)
    first = next(prompts for kind, prompts in player.calls if kind in ("choose", "write"))
    assert first == list("abcdefgh")
    assert max(len(prompts) for kind, prompts in player.calls if kind == "draw") == 2


def test_players_that_differ_are_asked_apart() -> None:
    one, two, rollouts = Artist(), Artist(), Rollouts(room=4)
    for name, player in zip("abcd", (one, two, one, two), strict=True):
        join(rollouts, player, name)
    finish(rollouts)
    assert {p for _, prompts in one.calls for p in prompts} == {"a", "c"}
    assert {p for _, prompts in two.calls for p in prompts} == {"b", "d"}


def test_texts_of_players_that_write_alike_share_calls_and_each_draws_its_own() -> None:
    """Requests that differ in size or flow steps wrote one after another."""

    class Alike(Artist):
        texts = "the same"

    one, two, rollouts = Alike(), Alike(), Rollouts(room=4)
    for name, player in zip("abcd", (one, two, one, two), strict=True):
        join(rollouts, player, name)
    done = finish(rollouts)
    assert [done[number] for number in range(4)] == [alone(name, 1) for name in "abcd"]
    assert ["a", "b", "c", "d"] in [names for kind, names in one.calls if kind == "write"]
    for player, names in ((one, {"a", "c"}), (two, {"b", "d"})):
        assert {p for kind, prompts in player.calls if kind == "draw" for p in prompts} == names


class InSteps(Artist):
    """Draws in some steps, two pictures at a time."""

    pictures = texts = "the same"
    num_steps = 3

    def begin(self, request: StepRequest) -> dict[str, Any]:
        return {"request": request, "steps": 0, "of": self}

    def give_up(self, picture: dict[str, Any]) -> None:
        picture["given up"] = True

    def step(
        self, pictures: Sequence[dict[str, Any]], _: object = None
    ) -> list[Sketch | RoleError | None]:
        self._note("step", [picture["request"] for picture in pictures])
        self.while_drawing()
        answers: list[Sketch | RoleError | None] = [None] * len(pictures)
        for row, picture in enumerate(pictures[: self.num_at_once]):
            picture["steps"] += 1
            if picture["steps"] == self.num_steps:
                [answers[row]] = picture["of"].draw([picture["request"]])
        return answers


def test_pictures_are_begun_while_others_are_half_drawn_and_texts_come_between_their_steps() -> (
    None
):
    """Who came while others were drawn waited until their pictures were done."""
    one, two, rollouts = InSteps(), InSteps(), Rollouts(room=4)
    join(rollouts, one, "a")
    while len([kind for kind, _ in one.calls if kind == "step"]) < 1:
        rollouts.advance()
    for name, player in zip("bcd", (two, one, two), strict=True):
        join(rollouts, player, name)
    done = finish(rollouts)
    assert [done[number] for number in range(4)] == [alone(name, 1) for name in "abcd"]
    kinds = [(kind, prompts) for kind, prompts in one.calls if kind in ("step", "write")]
    assert any(kind == "step" and {"a", "b"} <= set(prompts) for kind, prompts in kinds)
    for player, names in ((one, {"a", "c"}), (two, {"b", "d"})):
        assert {p for kind, prompts in player.calls if kind == "draw" for p in prompts} == names


def test_texts_come_between_the_steps_of_a_picture_and_not_between_any_two() -> None:
    player, rollouts, since = InSteps(), Rollouts(room=6), list[int]()
    player.num_steps = 3 * STEPS_BETWEEN_TEXTS
    for name in "abcdef":
        join(rollouts, player, name)
    while rollouts:
        drawing, before = bool(rollouts._drawn), len(player.calls)
        rollouts.advance()
        kinds = [kind for kind, _ in player.calls]
        if drawing and "write" in kinds[before:]:
            steps = kinds[:before][::-1]
            since.append(steps[: steps.index("write")].count("step"))
    assert since and min(since) == STEPS_BETWEEN_TEXTS


def test_a_model_writes_alike_whatever_it_draws_and_not_with_another_temperature() -> None:
    first = BagelPlayer(tiny.engine(), SETTINGS)
    reader, one_step = first._reader, SETTINGS.flows.each(lambda f: replace(f, num_flow_steps=1))
    drawing = replace(SETTINGS, flows=one_step, size=(8, 8))
    assert first.texts == BagelPlayer(first.engine, drawing, reader=reader).texts
    for other in (
        BagelPlayer(first.engine, replace(SETTINGS, temperature=0.5), reader=reader),
        BagelPlayer(first.engine, replace(SETTINGS, vision_only=True), reader=reader),
        BagelPlayer(first.engine, SETTINGS),  # which has read other things
    ):
        assert first.texts != other.texts


def test_whoever_ends_is_given_back_at_once_and_makes_room() -> None:
    player, events = Artist(), list[Event]()
    rollouts = Rollouts(room=2, on_event=events.append)
    join(rollouts, player, "a", seed=1)
    join(rollouts, player, "b", seed=2)
    with pytest.raises(ValueError, match="2 trajectories are on their way; there is no room"):
        join(rollouts, player, "c")
    while not (done := rollouts.advance()):
        assert not any(isinstance(event, Stopped | Failed) for event in events)
    assert rollouts.room == len(done) and len(rollouts) == 2 - len(done)
    assert player.released == [trajectory.prompt for _, trajectory in done]
    complete = next(made for seed in range(20) if (made := alone("c", seed)).complete)
    number = rollouts.join(complete, seed=3, roles=Roles.of(player, "a"), policy=POLICY)
    calls = len(player.calls)
    assert rollouts.advance() == [(number, complete)] and len(player.calls) == calls


def test_there_must_be_room_for_one() -> None:
    with pytest.raises(ValueError, match="room for 0 trajectories; give at least 1"):
        Rollouts(room=0)


@pytest.mark.parametrize("order", range(8))
def test_whoever_comes_and_goes_changes_nothing_for_the_others(order: int) -> None:
    draw, player = random.Random(order), Artist()
    rollouts = Rollouts(room=draw.randint(1, 5))
    todo = [(f"p{i % 7}", i) for i in range(24)]
    draw.shuffle(todo)
    numbers: dict[int, tuple[str, int]] = {}
    cancelled, done = set[int](), dict[int, Trajectory]()
    while todo or rollouts:
        while todo and rollouts.room and draw.random() < 0.6:
            prompt, seed = todo.pop()
            numbers[join(rollouts, player, prompt, seed)] = prompt, seed
        if draw.random() < 0.15 and (living := sorted(numbers.keys() - done.keys())):
            cancelled.add(gone := draw.choice(living))
            rollouts.cancel(gone)
        done |= dict(rollouts.advance())
    assert len(done) == 24 and cancelled
    for number, trajectory in done.items():
        whole = alone(*numbers[number])
        if trajectory.provenance.get("failure") == "cancelled":
            assert number in cancelled
            assert whole.steps[: len(trajectory.steps)] == trajectory.steps
        else:
            assert trajectory == whole
    assert len(player.released) == 24


def test_texts_are_previewed_for_whoever_watches() -> None:
    player, events = Artist(), list[Event]()
    rollouts = Rollouts(room=2, on_event=events.append, preview_texts=True)
    join(rollouts, player, "a", watched=lambda: False)
    rollouts.advance()
    rollouts.advance()
    assert not any(isinstance(event, TextPreviewed) for event in events)
    rollouts.cancel(0)
    second = join(rollouts, player, "b", seed=2)
    done = finish(rollouts)[second]
    texts = [event for event in events if isinstance(event, TextPreviewed)]
    assert {event.rollout for event in texts} == {second}
    for event in texts:
        step = done.steps[event.index]
        assert moves(done.steps)[event.index] in event.moves
        assert not isinstance(step, Sketch | Stop) and write(step).startswith(event.text)


# --- leaving ------------------------------------------------------------------------------------


def test_who_is_cancelled_leaves_at_once_with_what_it_has() -> None:
    player, events = Artist(), list[Event]()
    rollouts = Rollouts(room=2, on_event=events.append)
    number = join(rollouts, player, "a")
    while not any(isinstance(event, SketchDrawn) for event in events):
        rollouts.advance()
    calls = len(player.calls)
    rollouts.cancel(number)
    assert rollouts.room == 2 and player.released == ["a"]
    [(given, trajectory)] = rollouts.advance()
    assert given == number and len(player.calls) == calls and not rollouts
    assert trajectory.provenance["failure"] == "cancelled" and trajectory.last_sketch is not None
    assert isinstance(events[-1], Failed) and events[-1].trajectory == trajectory
    rollouts.cancel(number)  # gone already
    rollouts.cancel(77)
    assert rollouts.advance() == []


def test_who_is_cancelled_while_it_is_drawn_is_not_asked_about_again() -> None:
    player, rollouts = Artist(), Rollouts(room=3)
    first, second = join(rollouts, player, "a"), join(rollouts, player, "b")
    player.while_drawing = lambda: rollouts.cancel(first)
    done = finish(rollouts)
    assert done[first].provenance["failure"] == "cancelled" and done[first].last_sketch is None
    assert done[first].provenance["retries"] == alone("a", 1).provenance["retries"]
    assert done[second] == alone("b", 1)


def test_who_is_drawn_when_ctrl_c_is_pressed_can_still_be_cancelled() -> None:
    class Interrupted(Artist):
        pressed = False

        def draw(self, *arguments: Any) -> Any:
            if not self.pressed:
                self.pressed = True
                raise KeyboardInterrupt
            return super().draw(*arguments)

    player, rollouts = Interrupted(), Rollouts(room=2)
    one, other = join(rollouts, player, "a"), join(rollouts, player, "b")
    with pytest.raises(KeyboardInterrupt):
        finish(rollouts)
    rollouts.cancel(one)
    done = finish(rollouts)
    assert done[one].provenance["failure"] == "cancelled"
    assert done[other] == alone("b", 1)


def test_a_reason_to_give_up_is_looked_for_between_pieces() -> None:
    player, rollouts, reasons = Artist(), Rollouts(room=2), list[str]()
    join(rollouts, player, "a", interrupt=lambda: reasons[0] if reasons else None)
    other = join(rollouts, player, "b")
    rollouts.advance()
    reasons.append("deadline")
    [(number, trajectory)] = rollouts.advance()
    assert (number, trajectory.provenance["failure"]) == (0, "deadline")
    assert finish(rollouts)[other] == alone("b", 1)


# --- failing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ZeroDivisionError("a mistake"), RoleError("timeout", "late")])
def test_a_player_that_breaks_on_one_goes_on_with_the_others(error: Exception) -> None:
    player, rollouts = Artist(), Rollouts(room=4)
    player.breaks_on, player.error = "b", error
    for seed, name in enumerate("abcd"):
        join(rollouts, player, name, seed)
    done, lost = dict[int, Trajectory](), list[LostRollout]()
    while rollouts:
        try:
            done |= dict(rollouts.advance())
        except LostRollout as one:
            lost.append(one)
    for seed, name in enumerate("abcd"):
        if name != "b":
            assert done[seed] == alone(name, seed)
    if isinstance(error, RoleError):
        assert done[1].provenance["failure"] == "timeout" and not lost
    else:
        assert [one.number for one in lost] == [1] and lost[0].__cause__ is error
    assert player.released.count("b") == 1


def test_a_loop_over_prompts_says_how_a_player_broke() -> None:
    player = Artist()
    player.breaks_on = "b"
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        StagedLoop(Roles.of(player, "a"), POLICY).run(["a", "b"], [0, 1])


# --- what BAGEL holds ---------------------------------------------------------------------------

FLOW = FlowSettings(
    num_flow_steps=4, timestep_shift=1.0, guidance=Guidance(text_scale=2.0, image_scale=1.5)
)
SETTINGS = BagelSettings(flows=Flows().each(lambda _: FLOW), max_text_tokens=8, preview_every=1)
MIDDLE = replace(tiny.staged_trajectory(), steps=tiny.staged_trajectory().steps[:11])


@pytest.mark.parametrize("sketcher", ["model", "editing"])
def test_a_cancelled_trajectory_leaves_nothing_in_the_cache_and_stops_drawing(
    sketcher: str,
) -> None:
    player = BagelPlayer(tiny.engine(), SETTINGS)
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, Previewed) and event.rollout == 0 and event.flow_step == 2:
            rollouts.cancel(0)

    rollouts = Rollouts(room=2, on_event=on_event)
    roles = Roles.of(player, "tiny")
    if sketcher == "editing":
        roles = replace(roles, sketcher=EditingSketcher(player))
    rollouts.join(MIDDLE, seed=1, roles=roles, policy=Policy())
    done: list[tuple[int, Trajectory]] = []
    calls = list[int]()
    hook = player.engine.model.register_forward_hook(lambda *_: calls.append(1))
    while not done:
        calls.clear()
        done = rollouts.advance()
    hook.remove()
    [(_, trajectory)] = done
    assert trajectory.provenance["failure"] == "cancelled" and trajectory.steps == MIDDLE.steps
    assert [e.flow_step for e in events if isinstance(e, Previewed)] == [1, 2]
    assert player._reader.num_tokens == 0 and not calls  # at once, and before anything else


@pytest.mark.parametrize("broken", ["step", "draw", "write", "choose", "inspect a redrawing"])
@pytest.mark.parametrize("sketcher", ["model", "editing"])
def test_a_lost_trajectory_leaves_nothing_in_the_cache_while_its_error_is_kept(
    sketcher: str, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error keeps the frames that it came through, and all that stands in them."""
    player = BagelPlayer(tiny.engine(), SETTINGS)
    roles = Roles.of(player, "tiny")
    if sketcher == "editing":
        roles = replace(roles, sketcher=EditingSketcher(player))
    start, engine, calls = MIDDLE, player.engine, list[int]()
    if broken in ("draw", "inspect a redrawing"):
        roles = replace(roles, sketcher=RedrawingSketcher(roles.sketcher, player, max_redraws=1))
    if broken in ("write", "choose"):
        start = replace(MIDDLE, steps=MIDDLE.steps[:-1])
    name = {"step": "step", "draw": "step", "choose": "append_text"}.get(broken, "write")
    works: Any = getattr(engine, name)

    def breaks(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 3 or name == "write":
            raise ZeroDivisionError("a mistake")
        return works(*arguments, **named)

    monkeypatch.setattr(engine, name, breaks)
    rollouts = Rollouts(room=2)
    rollouts.join(start, seed=1, roles=roles, policy=Policy())
    with pytest.raises(LostRollout) as kept:
        while rollouts:
            rollouts.advance()
    assert isinstance(kept.value.__cause__, ZeroDivisionError) and calls
    assert player._reader.num_tokens == 0 and player._reader.cache.num_free > 0
    assert len(rollouts) == 0


def test_what_a_picture_stands_on_stays_when_its_twin_ends_and_is_read_again_when_lost() -> None:
    engine, policy = tiny.engine(), Policy(mode="one-shot")
    player = BagelPlayer(engine, SETTINGS)
    start = replace(MIDDLE, steps=())
    expected = [
        StagedLoop(Roles.of(BagelPlayer(engine, SETTINGS), "tiny"), policy).run([start], [seed])
        for seed in (1, 2)
    ]
    roles, rollouts = Roles.of(player, "tiny"), Rollouts(room=2)
    rollouts.join(start, seed=1, roles=roles, policy=policy)
    rollouts.advance()
    rollouts.advance()
    rollouts.join(start, seed=2, roles=roles, policy=policy)
    done = dict[int, Trajectory]()
    while not done:
        done |= dict(rollouts.advance())
    with readings_of(engine) as read:
        done |= dict(rollouts.advance())
        assert not read  # the other's end took nothing away
        for parts in tuple(player._reader._known):
            player._reader._drop(parts)
        done |= dict(rollouts.advance())
        assert read
    done |= finish(rollouts)
    assert [done[0], done[1]] == [trajectory for [trajectory] in expected]
    assert player._reader.num_tokens == 0


@contextmanager
def readings_of(engine: Engine) -> Iterator[list[int]]:
    """Notes readings."""
    read, append = list[int](), engine._append
    with patch.object(engine, "_append", lambda *given: read.append(1) or append(*given)):
        yield read


def test_what_others_still_stand_on_stays_when_one_leaves() -> None:
    player = BagelPlayer(tiny.engine(), SETTINGS)
    reader = player._reader
    reader.read([parts_of(MIDDLE)])
    short = replace(MIDDLE, steps=MIDDLE.steps[:4])
    held = reader.num_tokens
    player.release(short)  # a beginning of what is known
    assert reader.num_tokens == held
    other = replace(short, steps=(*short.steps, tiny.sketch(9)))
    reader.read([parts_of(other)])
    player.release(MIDDLE)
    alone = BagelPlayer(tiny.engine(), SETTINGS)._reader
    alone.read([parts_of(other)])
    assert set(reader._known) == set(alone._known)
    # It went on in a copy of the page that the longer one had filled up.
    assert alone.num_tokens <= reader.num_tokens <= alone.num_tokens + reader.cache.page_size
    assert reader.num_tokens < held
    player.release(other)
    assert reader.num_tokens == 0


def test_the_model_draws_the_same_whoever_joins_and_leaves() -> None:
    engine = tiny.engine()
    starts = [replace(MIDDLE, steps=MIDDLE.steps[:end]) for end in (4, 11, 8)]
    policy = Policy(max_attempts=1)

    def by_itself(start: Trajectory, seed: int) -> Trajectory:
        loop = StagedLoop(Roles.of(BagelPlayer(engine, SETTINGS), "tiny"), policy)
        return loop.run([start], [seed])[0]

    roles, rollouts = Roles.of(BagelPlayer(engine, SETTINGS), "tiny"), Rollouts(room=3)
    rollouts.join(starts[0], seed=0, roles=roles, policy=policy)
    rollouts.advance()
    rollouts.join(starts[1], seed=1, roles=roles, policy=policy)
    gone = rollouts.join(starts[1], seed=5, roles=roles, policy=policy)
    ended = dict(rollouts.advance())
    rollouts.cancel(gone)
    ended |= dict(rollouts.advance())
    third = rollouts.join(starts[2], seed=2, roles=roles, policy=policy)
    ended |= finish(rollouts)
    assert ended[gone].provenance["failure"] == "cancelled"
    for number, start, seed in ((0, starts[0], 0), (1, starts[1], 1), (third, starts[2], 2)):
        assert ended[number] == by_itself(start, seed)
