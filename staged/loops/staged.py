"""The loop: plan, sketch, inspect, refine, until whoever directs it stops.

It advances many trajectories together, in groups that do the same: as long as any of them has
something to write, those write; then all draw. What a trajectory becomes depends on its prompt
and seed, never on its company, as far as that is true of the players (of BAGEL it is, to the bit).
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, TypeVar

from staged.loops.events import (
    Answered,
    EndedBy,
    Event,
    Failed,
    Inspected,
    PlanWritten,
    Previewed,
    Refined,
    Retried,
    SketchDrawn,
    Stopped,
    ThoughtWritten,
)
from staged.loops.policy import Policy
from staged.roles import (
    BatchedDirector,
    BatchedSketcher,
    BatchedWriter,
    Pixels,
    RoleError,
    StepRequest,
)
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

Result = TypeVar("Result")
OnEvent = Callable[[Event], None]
DEFAULT_BATCH_SIZE = 64


class _AllRoles(BatchedDirector, BatchedWriter, BatchedSketcher, Protocol):
    """A player of all roles."""


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Who plays which role.

    Attributes:
        director: Decides what comes next.
        planner: Writes plans, thoughts and answers.
        sketcher: Draws.
        inspector: Writes inspections.
        refiner: Writes refinements.
        names: Role to name, for provenance.
    """

    director: BatchedDirector
    planner: BatchedWriter
    sketcher: BatchedSketcher
    inspector: BatchedWriter
    refiner: BatchedWriter
    names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, player: _AllRoles, name: str) -> Self:
        """One player in all roles."""
        roles = ("director", "planner", "sketcher", "inspector", "refiner")
        return cls(
            director=player,
            planner=player,
            sketcher=player,
            inspector=player,
            refiner=player,
            names=dict.fromkeys(roles, name),
        )

    def writer(self, moves: tuple[Move, ...]) -> BatchedWriter:
        """Return who writes one of several moves.

        Raises:
            ValueError: they belong to different players.
        """
        writers = [self._writer(move) for move in moves]
        if any(writer is not writers[0] for writer in writers):
            raise ValueError(
                f"{' and '.join(moves)} belong to different players, and the director left open "
                "which it is; set the policy's inspections to always or never"
            )
        return writers[0]

    def _writer(self, move: Move) -> BatchedWriter:
        if move in ("inspect plan", "inspect sketch"):
            return self.inspector
        return self.refiner if move in ("refine plan", "refine sketch") else self.planner


@dataclass
class _Rollout:
    """A trajectory on its way."""

    index: int
    seed: int
    trajectory: Trajectory
    moves: tuple[Move, ...] = ()
    attempt: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    chosen: bool = False
    ended: bool = False

    def request(self) -> StepRequest:
        place = len(self.trajectory.steps)
        return StepRequest(
            trajectory=self.trajectory,
            moves=self.moves,
            seed=step_seed(self.seed, place, self.attempt),
            attempt=self.attempt,
        )


class StagedLoop:
    """Roles and a policy."""

    def __init__(
        self, roles: Roles, policy: Policy | None = None, *, batch_size: int = DEFAULT_BATCH_SIZE
    ) -> None:
        """Check that they fit.

        Args:
            roles: Who plays.
            policy: Mode and limits.
            batch_size: Trajectories that advance together, at most.

        Raises:
            ValueError: the limits leave no flow steps for a single sketch.
        """
        self.roles, self.policy, self.batch_size = roles, policy or Policy(), batch_size
        self.policy.check_cost(roles.sketcher.num_flow_steps)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; give at least 1")

    def run(
        self,
        starts: Sequence[str | Trajectory],
        seeds: Sequence[int],
        on_event: OnEvent | None = None,
    ) -> list[Trajectory]:
        """Take prompts, or trajectories begun elsewhere, to their end.

        Args:
            starts: Prompts, or trajectories to go on from: with input images, or with steps that
                may have been edited.
            seeds: One for each; the same start and seed take the same way.
            on_event: Told of everything as it happens.

        Returns:
            The trajectories in order. One whose step failed for good is not complete; its
            provenance has `failure`.
        """
        ended = dict(self.stream(starts, seeds, on_event))
        return [ended[index] for index in range(len(starts))]

    def stream(
        self,
        starts: Sequence[str | Trajectory],
        seeds: Sequence[int],
        on_event: OnEvent | None = None,
    ) -> Iterator[tuple[int, Trajectory]]:
        """Do what `run` does, and give each trajectory as it ends, with its place among `starts`.

        Another begins as soon as one has ended.
        """
        if len(starts) != len(seeds):
            raise ValueError(f"{len(seeds)} seeds for {len(starts)} prompts; give one for each")
        rollouts = [
            _Rollout(i, seed, Trajectory(prompt=start) if isinstance(start, str) else start)
            for i, (start, seed) in enumerate(zip(starts, seeds, strict=True))
        ]
        tell = on_event or _ignore
        waiting, live = deque(rollouts), list[_Rollout]()
        while waiting or live:
            while waiting and len(live) < self.batch_size:
                live.append(waiting.popleft())
            self._advance(live, tell, previews=on_event is not None)
            yield from ((r.index, r.trajectory) for r in live if r.ended)
            live = [rollout for rollout in live if not rollout.ended]

    def _advance(self, live: Sequence[_Rollout], tell: OnEvent, *, previews: bool) -> None:
        self._decide(live, tell)
        active = [rollout for rollout in live if not rollout.ended]
        undecided = [rollout for rollout in active if not rollout.moves]
        writing = [rollout for rollout in active if rollout.moves not in ((), ("sketch",))]
        if writing:
            groups: dict[int, tuple[BatchedWriter, list[_Rollout]]] = {}
            for rollout in writing:
                writer = self.roles.writer(rollout.moves)
                groups.setdefault(id(writer), (writer, []))[1].append(rollout)
            for writer, group in groups.values():
                results: Sequence[Step | RoleError] = _asked(
                    writer.write, [rollout.request() for rollout in group]
                )
                self._take(group, results, tell)
        elif active and not undecided:  # all who draw next draw together
            self._draw(active, tell if previews else None, tell)

    def _decide(self, live: Sequence[_Rollout], tell: OnEvent) -> None:
        """Settle what each trajectory does next; end those that stop."""
        open_ones: list[_Rollout] = []
        for rollout in live:
            if rollout.moves:
                continue  # decided before, and waiting for its turn or for another attempt
            trajectory = rollout.trajectory
            rollout.moves = self.policy.allowed(trajectory, self.roles.sketcher.num_flow_steps)
            rollout.chosen = len({_kind(move) for move in rollout.moves}) > 1
            if rollout.chosen:
                open_ones.append(rollout)
            elif not rollout.moves and not trajectory.complete:
                limit = RoleError("limit", "no flow steps are left for the sketch that must follow")
                self._fail(rollout, limit, tell)
            elif not rollout.moves:
                rollout.ended = True  # complete when it came
        if open_ones:
            self._choose(open_ones, tell)
        for rollout in live:
            if rollout.moves == ("stop",):
                self._stop(rollout, tell)

    def _choose(self, open_ones: Sequence[_Rollout], tell: OnEvent) -> None:
        chosen = _asked(self.roles.director.choose, [rollout.request() for rollout in open_ones])
        for rollout, choice in zip(open_ones, chosen, strict=True):
            if not isinstance(choice, RoleError) and not set() < set(choice) <= set(rollout.moves):
                wanted = " or ".join(rollout.moves)
                said = " or ".join(choice) or "nothing"
                choice = RoleError("illegal", f"chose {said} where {wanted} was wanted")
            if isinstance(choice, RoleError):
                self._retry(rollout, choice, tell)
                rollout.moves = ()  # still to be decided
            else:
                rollout.moves, rollout.attempt = choice, 0

    def _draw(self, group: Sequence[_Rollout], previews: OnEvent | None, tell: OnEvent) -> None:
        def preview(row: int, flow_step: int, pixels: Pixels) -> None:
            assert previews is not None
            previews(
                Previewed(
                    rollout=group[row].index,
                    index=len(group[row].trajectory.steps),
                    flow_step=flow_step,
                    num_flow_steps=self.roles.sketcher.num_flow_steps,
                    pixels=pixels,
                )
            )

        def draw(requests: Sequence[StepRequest]) -> Sequence[Sketch | RoleError]:
            # Rows of a preview are those of the whole group.
            shown = preview if previews and len(requests) == len(group) else None
            return self.roles.sketcher.draw(requests, shown)

        self._take(group, _asked(draw, [rollout.request() for rollout in group]), tell)

    def _take(
        self, group: Sequence[_Rollout], results: Sequence[Step | RoleError], tell: OnEvent
    ) -> None:
        for rollout, result in zip(group, results, strict=True):
            if not isinstance(result, RoleError):
                try:
                    grown = rollout.trajectory.extend(result)
                    made = moves(grown.steps)[-1]
                    if made not in rollout.moves:
                        wanted = " or ".join(rollout.moves)
                        result = RoleError("illegal", f"{made} where {wanted} was wanted")
                    else:
                        rollout.trajectory = grown
                except TrajectoryError as error:
                    result = RoleError("illegal", str(error))
            if isinstance(result, RoleError):
                self._retry(rollout, result, tell)
                continue
            rollout.moves, rollout.attempt = (), 0
            tell(_event(rollout, result))

    def _retry(self, rollout: _Rollout, error: RoleError, tell: OnEvent) -> None:
        rollout.attempt += 1
        if rollout.attempt >= self.policy.max_attempts:
            self._fail(rollout, error, tell)
            return
        rollout.retries[error.reason] += 1
        tell(
            Retried(
                rollout=rollout.index,
                index=len(rollout.trajectory.steps),
                moves=rollout.moves,
                reason=error.reason,
                detail=str(error),
                attempt=rollout.attempt,
            )
        )

    def _stop(self, rollout: _Rollout, tell: OnEvent) -> None:
        rollout.trajectory = rollout.trajectory.extend(Stop())
        ended_by: EndedBy = "model" if rollout.chosen else "policy"
        self._end(rollout, ended_by)
        tell(Stopped(rollout=rollout.index, ended_by=ended_by, trajectory=rollout.trajectory))

    def _fail(self, rollout: _Rollout, error: RoleError, tell: OnEvent) -> None:
        self._end(rollout, "failure", failure=error.reason, failure_detail=str(error)[:500])
        tell(
            Failed(
                rollout=rollout.index,
                reason=error.reason,
                detail=str(error),
                trajectory=rollout.trajectory,
            )
        )

    def _end(self, rollout: _Rollout, ended_by: EndedBy, **more: Any) -> None:
        trajectory = rollout.trajectory
        provenance = trajectory.provenance | {
            "models": dict(self.roles.names),
            "mode": self.policy.mode,
            "seeds": {"rollout": rollout.seed},
            "ended_by": ended_by,
            "retries": dict(rollout.retries),
            "cost": {"flow_steps": trajectory.num_flow_steps},
            **more,
        }
        rollout.trajectory = replace(trajectory, provenance=provenance)
        rollout.ended = True


def step_seed(seed: int, place: int, attempt: int) -> int:
    """Seed of one attempt at one step of a trajectory, below 2**48."""
    digest = hashlib.blake2b(f"{seed}/{place}/{attempt}".encode(), digest_size=6).digest()
    return int.from_bytes(digest)


def _asked(
    act: Callable[[Sequence[StepRequest]], Sequence[Result | RoleError]],
    requests: Sequence[StepRequest],
) -> Sequence[Result | RoleError]:
    """Let a player act; where it fails for all, for one at a time, so that each fails alone."""
    try:
        return act(requests)
    except RoleError as error:
        if len(requests) == 1:
            return [error]
        return [result for request in requests for result in _asked(act, [request])]


def _kind(move: Move) -> str:
    """What announces a move: an image, the end, or a text."""
    return move if move in ("sketch", "stop") else "text"


def _event(rollout: _Rollout, step: Step) -> Event:
    place: dict[str, Any] = {
        "rollout": rollout.index,
        "index": len(rollout.trajectory.steps) - 1,
        "step": step,
    }
    match step:
        case Plan():
            return PlanWritten(**place)
        case Sketch():
            return SketchDrawn(**place)
        case Inspection():
            return Inspected(**place)
        case Refinement():
            return Refined(**place)
        case Answer():
            return Answered(**place)
        case Thought():
            return ThoughtWritten(**place)
    raise AssertionError(f"{step} is not made by a player")


def _ignore(event: Event) -> None:
    pass
