"""One trajectory on its way: what it needs next, and what becomes of the answer.

A rollout asks nobody. It says which piece it needs (a choice, a text or a sketch) and of whom, and
takes what comes; `staged.loops.rollouts` asks for many at a time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from staged.loops.events import (
    Answered,
    EndedBy,
    Event,
    Failed,
    Inspected,
    PlanWritten,
    Refined,
    Retried,
    SketchDrawn,
    StepEvent,
    Stopped,
    ThoughtWritten,
)
from staged.loops.policy import Policy
from staged.loops.roles import Roles
from staged.roles import Interrupt, RoleError, StepRequest
from staged.trajectory import (
    Answer,
    Inspection,
    Move,
    Plan,
    Refinement,
    Sketch,
    Step,
    Stop,
    Thought,
    Trajectory,
    TrajectoryError,
    moves,
)

OnEvent = Callable[[Event], None]
Result = tuple[Move, ...] | Step
"""What a player gives back: moves chosen, or a step made."""


class Rollout:
    """A trajectory that is taken to its end.

    Attributes:
        number: By which its events name it.
        roles: Who plays.
        trajectory: The steps so far.
        moves: What comes next; empty once it has ended.
        ended: Whether it has: it stopped, failed, or was given up.
        choosing: Whether the director is to narrow `moves`.
    """

    def __init__(
        self,
        number: int,
        start: Trajectory,
        *,
        seed: int,
        roles: Roles,
        policy: Policy,
        tell: OnEvent,
        interrupt: Interrupt,
    ) -> None:
        """Take a trajectory that nobody has been asked about yet.

        Args:
            number: By which its events name it.
            start: A prompt, possibly with steps.
            seed: Of all its steps.
            roles: Who plays.
            policy: Mode and limits.
            tell: Told of everything as it happens.
            interrupt: Asked for a reason to give up.
        """
        self.number, self.roles, self.trajectory = number, roles, start
        self.moves: tuple[Move, ...] = ()
        self.ended = self.choosing = False
        self._seed, self._policy, self._tell = seed, policy, tell
        self._interrupt = interrupt
        self._given_up: str | None = None
        self._attempt, self._retries = 0, Counter[str]()

    def begin(self) -> None:
        """Settle what comes first; what is complete, or cannot go on, ends."""
        self._go_on()

    def request(self) -> StepRequest:
        """Say what is wanted of whoever plays next."""
        place = len(self.trajectory.steps)
        return StepRequest(
            trajectory=self.trajectory,
            moves=self.moves,
            seed=step_seed(self._seed, place, self._attempt),
            attempt=self._attempt,
            interrupt=self.interrupted,
        )

    def interrupted(self) -> str | None:
        """Why it is to end before its time, if it is; asked from any thread."""
        return self._given_up or self._interrupt()

    def give_up(self, reason: str) -> None:
        """Have `interrupted` say so from now on."""
        self._given_up = reason

    def end_if_interrupted(self) -> None:
        """End as a failure with the reason, where there is one."""
        if not self.ended and (reason := self.interrupted()) is not None:
            self._fail(RoleError(reason))

    # --- what comes back ---------------------------------------------------------------------

    def take(self, result: Result | RoleError) -> None:
        """Take what was chosen, written or drawn."""
        if isinstance(result, RoleError):
            self._retry(result)
        elif isinstance(result, tuple):
            self._take_choice(result)
        else:
            self._take_step(result)

    def _take_choice(self, chosen: tuple[Move, ...]) -> None:
        if not set() < set(chosen) <= set(self.moves):
            said = " or ".join(chosen) or "nothing"
            self._refuse(f"chose {said}")
            return
        self.moves, self.choosing, self._attempt = chosen, False, 0
        if chosen == ("stop",):
            self._stop("model")

    def _take_step(self, step: Step) -> None:
        try:
            grown = self.trajectory.extend(step)
        except TrajectoryError as error:
            self._retry(RoleError("illegal", str(error)))
            return
        made = moves(grown.steps)[-1]
        if made not in self.moves:
            self._refuse(made)
            return
        self.trajectory, self._attempt = grown, 0
        place: dict[str, Any] = {
            "rollout": self.number,
            "index": len(grown.steps) - 1,
            "step": step,
        }
        self._tell(_EVENTS[type(step)](**place))
        self._go_on()

    def _refuse(self, said: str) -> None:
        self._retry(RoleError("illegal", f"{said} where {' or '.join(self.moves)} was wanted"))

    # --- what comes next ---------------------------------------------------------------------

    def _go_on(self) -> None:
        """Settle what comes next, as far as the policy does."""
        trajectory = self.trajectory
        self.moves = self._policy.allowed(trajectory, self.roles.sketcher.num_flow_steps)
        self.choosing = len({_opener(move) for move in self.moves}) > 1
        if self.moves == ("stop",):
            self._stop("policy")
        elif not self.moves and trajectory.complete:
            self.ended = True  # complete when it came
        elif not self.moves:
            self._fail(RoleError("limit", "no flow steps are left for the sketch that must follow"))

    def _retry(self, error: RoleError) -> None:
        if (reason := self.interrupted()) is not None:
            self._fail(RoleError(reason))
            return
        self._attempt += 1
        if self._attempt >= self._policy.max_attempts:
            self._fail(error)
            return
        self._retries[error.reason] += 1
        self._tell(
            Retried(
                rollout=self.number,
                index=len(self.trajectory.steps),
                moves=self.moves,
                reason=error.reason,
                detail=str(error),
                attempt=self._attempt,
            )
        )

    def _stop(self, ended_by: EndedBy) -> None:
        self.trajectory = self.trajectory.extend(Stop())
        self._end(ended_by)
        self._tell(Stopped(rollout=self.number, ended_by=ended_by, trajectory=self.trajectory))

    def _fail(self, error: RoleError) -> None:
        self._end("failure", failure=error.reason, failure_detail=str(error)[:500])
        self._tell(
            Failed(
                rollout=self.number,
                reason=error.reason,
                detail=str(error),
                trajectory=self.trajectory,
            )
        )

    def _end(self, ended_by: EndedBy, **more: Any) -> None:
        trajectory = self.trajectory
        provenance = trajectory.provenance | {
            "models": dict(self.roles.names),
            "mode": self._policy.mode,
            "seeds": {"rollout": self._seed},
            "ended_by": ended_by,
            "retries": dict(self._retries),
            "cost": {"flow_steps": trajectory.num_flow_steps},
            **more,
        }
        self.trajectory = replace(trajectory, provenance=provenance)
        self.moves, self.choosing, self.ended = (), False, True


def step_seed(seed: int, place: int | str, attempt: int) -> int:
    """Seed of one attempt at one step, or at what a word names, below 2**48."""
    digest = hashlib.blake2b(f"{seed}/{place}/{attempt}".encode(), digest_size=6).digest()
    return int.from_bytes(digest)


def _opener(move: Move) -> str:
    """What announces a move: an image, the end, or a text."""
    return move if move in ("sketch", "stop") else "text"


_EVENTS: Final[dict[type[Step], type[StepEvent]]] = {
    Plan: PlanWritten,
    Sketch: SketchDrawn,
    Inspection: Inspected,
    Refinement: Refined,
    Answer: Answered,
    Thought: ThoughtWritten,
}
