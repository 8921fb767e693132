"""Many trajectories side by side: they join and leave between any two calls of a player.

Each waits in one queue with the piece that it needs next: a choice, a text or a sketch. The oldest
piece is asked for, and with it all others of its kind, in one call. Where a sketcher draws in
steps, a picture joins those that are half drawn at their next step, and whoever else waits has its
turn between steps. So some plan while others draw or inspect, and nobody waits for more than what
stood before him; and trajectories that began together keep step and share their calls, also where
pictures are drawn with other sizes and settings. What a trajectory becomes depends on its start and
seed, never on its company, as far as that is true of the players (of BAGEL it is, to the bit).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, Self

from staged.loops.events import Event, Previewed, TextPreviewed
from staged.loops.policy import Policy
from staged.loops.roles import Roles
from staged.loops.rollout import OnEvent, Result, Rollout
from staged.roles import (
    Alike,
    BatchedSketcher,
    DrawingInSteps,
    Interrupt,
    Pixels,
    Preview,
    RoleError,
    never,
)
from staged.trajectory import Trajectory

CANCELLED: Final = "cancelled"
"""Why a trajectory failed that was cancelled."""
STEPS_BETWEEN_TEXTS: Final = 8
"""Steps of pictures on their way before a text has its turn again. A text takes as long as some
steps do, and the longer it waits the more others share its call."""


class LostRollout(RuntimeError):
    """A player broke on a trajectory, which is gone; the cause says how. The others go on.

    Attributes:
        number: Of the trajectory.
        trajectory: Its steps so far.
    """

    def __init__(self, rollout: Rollout) -> None:
        """Name the trajectory."""
        super().__init__(f"a player broke on trajectory {rollout.number}")
        self.number, self.trajectory = rollout.number, rollout.trajectory


class Rollouts:
    """Trajectories on their way. One thread uses it; an `Interrupt` may be set from any."""

    def __init__(
        self, *, room: int, on_event: OnEvent | None = None, preview_texts: bool = False
    ) -> None:
        """Start with none.

        Args:
            room: Trajectories that advance side by side, at most.
            on_event: Told of everything as it happens; without it nothing is previewed.
            preview_texts: Also of every token of a text.

        Raises:
            ValueError: There is room for none.
        """
        if room < 1:
            raise ValueError(f"room for {room} trajectories; give at least 1")
        self._size, self._previews, self._texts = room, on_event is not None, preview_texts
        self._tell: OnEvent = on_event or _ignore
        self._live: dict[int, Rollout] = {}
        self._watched: dict[int, Callable[[], bool]] = {}
        self._waiting: dict[int, _Piece] = {}  # whoever has waited longest in front
        self._drawn: dict[int, _Piece] = {}  # step by step; whoever was begun first in front
        self._steps_since_text = 0
        self._ended: list[tuple[int, Trajectory]] = []
        self._lost: list[LostRollout] = []
        self._num_joined = 0

    def __len__(self) -> int:
        """Trajectories on their way, and those that have ended and were not given back yet."""
        return len(self._live) + len(self._ended) + len(self._lost)

    @property
    def room(self) -> int:
        """Trajectories that may still join."""
        return self._size - len(self._live)

    def join(
        self,
        start: str | Trajectory,
        *,
        seed: int,
        roles: Roles,
        policy: Policy,
        interrupt: Interrupt = never,
        watched: Callable[[], bool] = lambda: True,
    ) -> int:
        """Let a trajectory in.

        Args:
            start: A prompt, or a trajectory to go on from: with input images, or with steps that
                may have been edited.
            seed: The same start and seed take the same way.
            roles: Who plays; trajectories with the same players share calls.
            policy: Mode and limits.
            interrupt: Asked between pieces, and by players between network evaluations, for a
                reason to give the trajectory up.
            watched: Whether anybody wants previews; asked before each call of a player.

        Returns:
            The number by which its events name it; they count up from 0.

        Raises:
            ValueError: There is no room.
        """
        if self.room < 1:
            raise ValueError(f"{len(self._live)} trajectories are on their way; there is no room")
        number, self._num_joined = self._num_joined, self._num_joined + 1
        rollout = Rollout(
            number,
            Trajectory(prompt=start) if isinstance(start, str) else start,
            seed=seed,
            roles=roles,
            policy=policy,
            tell=self._tell,
            interrupt=interrupt,
        )
        self._live[number] = rollout
        self._watched[number] = watched
        rollout.begin()
        self._settle(rollout)
        return number

    def cancel(self, number: int) -> None:
        """Give a trajectory up with everything that is held for it, if it has not ended.

        It fails with the reason `cancelled`: at once, or, where a player is at it (this may be
        called by whoever is told of events), as soon as that player looks up.
        """
        if (rollout := self._live.get(number)) is not None:
            rollout.give_up(CANCELLED)
            if self._taken_out(number):
                self._settle(rollout)

    def advance(self) -> list[tuple[int, Trajectory]]:
        """Make one call of one player, for all who need the same of it.

        Of a sketcher that draws in steps it is one step.

        Returns:
            The trajectories that have ended, with their numbers. One that failed for good is not
            complete; its provenance has `failure`. Where some had ended before, there is no call.

        Raises:
            LostRollout: A player raised, for this trajectory alone, what is no `RoleError`.
        """
        pieces = [*self._waiting.values(), *self._drawn.values()]
        interrupted = [p.rollout for p in pieces if p.rollout.interrupted() is not None]
        for rollout in interrupted:
            if self._taken_out(rollout.number):
                self._settle(rollout)
        if not self._ended and not self._lost:
            if (first := self._due()) is not None:
                self._serve(self._sharing(first))
            elif self._drawn:
                self._draw_on()
        if self._lost:
            raise self._lost.pop(0)
        ended, self._ended = self._ended, []
        return ended

    # --- one call ----------------------------------------------------------------------------

    def _due(self) -> _Piece | None:
        """The oldest piece whose turn it is."""
        texts = not self._drawn or self._steps_since_text >= STEPS_BETWEEN_TEXTS
        waiting = self._waiting.values()
        return next((piece for piece in waiting if texts or piece.kind != "text"), None)

    def _sharing(self, first: _Piece) -> list[_Piece]:
        """Take out a piece, and those that can share its call."""
        alike = [piece for piece in self._waiting.values() if piece.shares_call(first)]
        if first.kind == "sketch":
            alike = alike[: first.rollout.roles.sketcher.num_at_once]
        for piece in alike:
            del self._waiting[piece.rollout.number]
        return alike

    def _serve(self, pieces: Sequence[_Piece]) -> None:
        if pieces[0].kind == "text":
            self._steps_since_text = 0
        try:
            for piece, result in zip(pieces, self._ask(pieces), strict=True):
                self._hand(piece, result)
        except BaseException:
            # Ctrl-C, or whoever is told raised: they can still be cancelled.
            for piece in pieces:
                self._put_back(piece)
            raise

    def _hand(self, piece: _Piece, result: Result | Exception) -> None:
        if isinstance(result, Exception):
            piece.give_up()
            if not isinstance(result, RoleError):
                self._lose(piece.rollout, result)
                return
        piece.rollout.take(result)
        self._settle(piece.rollout)

    def _draw_on(self) -> None:
        """Take the pictures that are drawn in steps a step on."""
        self._steps_since_text += 1
        # Out of reach of whoever cancels meanwhile: a player is at them.
        drawn, self._drawn = self._drawn, {}
        results = dict[int, Result | Exception]()
        try:
            left = list(drawn.values())
            while left:
                results |= self._step([piece for piece in left if piece.shares_call(left[0])])
                left = [piece for piece in left if not piece.shares_call(left[0])]
        finally:
            # Also where Ctrl-C was pressed, or whoever is told raised.
            self._drawn = {**drawn, **self._drawn}
        for number, result in results.items():
            piece = self._drawn.pop(number)
            try:
                self._hand(piece, result)
            except BaseException:
                self._put_back(piece)
                raise

    def _step(self, pieces: Sequence[_Piece]) -> dict[int, Result | Exception]:
        """Take a step; by number those who have ended by it, and how."""
        sketcher = pieces[0].rollout.roles.sketcher
        assert isinstance(sketcher, DrawingInSteps), "others are asked for whole pictures"
        try:
            pictures = [piece.begun() for piece in pieces]
            found = sketcher.step(pictures, self._previews_of(pieces))
        except Exception as error:
            if len(pieces) == 1:
                return {pieces[0].rollout.number: error}
            return {n: result for piece in pieces for n, result in self._step([piece]).items()}
        return {
            piece.rollout.number: result
            for piece, result in zip(pieces, found, strict=True)
            if result is not None
        }

    def _ask(self, pieces: Sequence[_Piece]) -> Sequence[Result | Exception]:
        """Ask for all together; where a player fails at that, for each alone, so that one fails."""
        try:
            return self._call(pieces)
        except Exception as error:
            if len(pieces) == 1:
                return [error]
        return [result for piece in pieces for result in self._ask([piece])]

    def _call(self, pieces: Sequence[_Piece]) -> Sequence[Result | RoleError]:
        first, requests = pieces[0], [piece.rollout.request() for piece in pieces]
        roles = first.rollout.roles
        match first.kind:
            case "choice":
                return roles.director.choose(requests)
            case "text":
                writer = roles.writer(first.rollout.moves)
                if self._texts and self._are_watched(pieces):
                    return writer.write(requests, partial(self._preview_text, pieces))
                return writer.write(requests)
            case "sketch":
                return roles.sketcher.draw(requests, self._previews_of(pieces))

    def _are_watched(self, pieces: Sequence[_Piece]) -> bool:
        return self._previews and any(self._watched[p.rollout.number]() for p in pieces)

    def _previews_of(self, pieces: Sequence[_Piece]) -> Preview | None:
        return partial(self._preview, pieces) if self._are_watched(pieces) else None

    def _preview(self, pieces: Sequence[_Piece], row: int, flow_step: int, pixels: Pixels) -> None:
        rollout = pieces[row].rollout
        self._tell(
            Previewed(
                rollout=rollout.number,
                index=len(rollout.trajectory.steps),
                flow_step=flow_step,
                num_flow_steps=rollout.roles.sketcher.num_flow_steps,
                pixels=pixels,
            )
        )

    def _preview_text(self, pieces: Sequence[_Piece], row: int, text: str) -> None:
        rollout = pieces[row].rollout
        self._tell(
            TextPreviewed(
                rollout=rollout.number,
                index=len(rollout.trajectory.steps),
                moves=rollout.moves,
                text=text,
            )
        )

    # --- between calls -----------------------------------------------------------------------

    def _settle(self, rollout: Rollout) -> None:
        """Put a trajectory where it belongs now: in the queue, or with those that have ended."""
        rollout.end_if_interrupted()
        if rollout.ended:
            self._part_from(rollout)
            self._ended.append((rollout.number, rollout.trajectory))
            return
        try:
            piece = _Piece.of(rollout)
        except ValueError as error:
            self._lose(rollout, error)
            return
        (self._drawn if piece.in_steps else self._waiting)[rollout.number] = piece

    def _put_back(self, piece: _Piece) -> None:
        """Have a trajectory wait again, unless it has ended or waits for something else."""
        number, queue = piece.rollout.number, self._drawn if piece.in_steps else self._waiting
        if number in self._live and number not in {**self._waiting, **self._drawn}:
            queue[number] = piece

    def _taken_out(self, number: int) -> bool:
        """Let a trajectory wait for nothing; whether it did."""
        piece = self._waiting.pop(number, None) or self._drawn.pop(number, None)
        if piece is None:
            return False
        piece.give_up()
        return True

    def _lose(self, rollout: Rollout, error: Exception) -> None:
        self._part_from(rollout)
        lost = LostRollout(rollout)
        lost.__cause__ = error
        self._lost.append(lost)

    def _part_from(self, rollout: Rollout) -> None:
        del self._live[rollout.number], self._watched[rollout.number]
        rollout.roles.release(rollout.trajectory)


@dataclass(eq=False)
class _Piece:
    """What a trajectory waits for, and of whom; a picture that is drawn in steps, once begun."""

    rollout: Rollout
    kind: Literal["choice", "text", "sketch"]
    player: object
    picture: Any = None

    @classmethod
    def of(cls, rollout: Rollout) -> Self:
        """Say what a trajectory needs.

        Raises:
            ValueError: A text of one of two players; see `Roles.writer`.
        """
        if rollout.choosing:
            return cls(rollout, "choice", _told_by(rollout.roles.director))
        if rollout.moves == ("sketch",):
            return cls(rollout, "sketch", _drawn_by(rollout.roles.sketcher))
        return cls(rollout, "text", _told_by(rollout.roles.writer(rollout.moves)))

    @property
    def in_steps(self) -> bool:
        """Whether it is a picture that is drawn in steps."""
        return self.kind == "sketch" and isinstance(self.rollout.roles.sketcher, DrawingInSteps)

    def begun(self) -> Any:
        """The picture, which is begun where it was not."""
        sketcher = self.rollout.roles.sketcher
        if self.picture is None and isinstance(sketcher, DrawingInSteps):
            self.picture = sketcher.begin(self.rollout.request())
        return self.picture

    def give_up(self) -> None:
        """Let go of the picture, if it was begun."""
        sketcher = self.rollout.roles.sketcher
        if self.picture is not None and isinstance(sketcher, DrawingInSteps):
            sketcher.give_up(self.picture)
            self.picture = None

    def shares_call(self, other: _Piece) -> bool:
        """Whether one call of a player may serve both."""
        return self.kind == other.kind and self.player == other.player


def _told_by(player: object) -> object:
    """What the player's choices and texts depend on; see `staged.roles.Alike`."""
    return player.texts if isinstance(player, Alike) else player


def _drawn_by(sketcher: BatchedSketcher) -> object:
    """Who shares calls with the sketcher; see `staged.roles.DrawingInSteps`."""
    return sketcher.pictures if isinstance(sketcher, DrawingInSteps) else sketcher


def _ignore(event: Event) -> None:
    pass
