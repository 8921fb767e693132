"""Rollouts of units that are coroutines, side by side in one thread."""

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from staged.loops.policy import Policy
from staged.loops.roles import Roles
from staged.loops.rollouts import LostRollout, Rollouts
from staged.trajectory import Trajectory


@dataclass(frozen=True)
class _Arrival:
    start: Trajectory
    seed: int
    ended: "asyncio.Future[Trajectory]"


class RollingThread:
    """Takes trajectories to their end in a thread of its own, as many at a time as there is room.

    What a rollout becomes depends on its start and seed alone, so it does not matter which others
    are on their way.

    Args:
        roles: Who plays. They may wait for coroutines of the event loop, which is not blocked.
        policy: Mode and limits.
        room: Trajectories side by side, at most.
    """

    def __init__(self, roles: Roles, policy: Policy, *, room: int) -> None:
        """Begin with nothing to do."""
        policy.check_cost(roles.sketcher.num_flow_steps)
        self._roles, self._policy, self._room = roles, policy, room
        self._arrivals: deque[_Arrival] = deque()
        self._working: asyncio.Task[None] | None = None
        # Of its own: the default ones may all wait for a coroutine that this one has to serve.
        self._thread = ThreadPoolExecutor(1, "rollouts")
        self._closed = False

    async def __aenter__(self) -> Self:
        """Return the thread."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Give up what is on its way, as soon as its player looks up."""
        self._closed = True
        if self._working is not None:
            self._working.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def roll(self, start: Trajectory, seed: int) -> Trajectory:
        """Take one start to its end.

        Raises:
            Exception: what a player raised for it beyond `RoleError`.
        """
        ended: asyncio.Future[Trajectory] = asyncio.get_running_loop().create_future()
        self._arrivals.append(_Arrival(start, seed, ended))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await ended

    async def _work(self) -> None:
        events = asyncio.get_running_loop()
        try:
            while self._arrivals:
                await asyncio.sleep(0)  # whoever begins at the same time comes along
                await events.run_in_executor(self._thread, self._run, events)
        finally:
            self._working = None

    def _run(self, events: asyncio.AbstractEventLoop) -> None:
        """Work until nobody is on the way; whoever arrives meanwhile joins where there is room."""
        rollouts, arrived = Rollouts(room=self._room), dict[int, _Arrival]()
        while not self._closed:
            while self._arrivals and rollouts.room:
                arrival = self._arrivals.popleft()
                number = rollouts.join(
                    arrival.start,
                    seed=arrival.seed,
                    roles=self._roles,
                    policy=self._policy,
                    interrupt=self._interrupted,
                )
                arrived[number] = arrival
            if not rollouts:
                return
            try:
                for number, trajectory in rollouts.advance():
                    events.call_soon_threadsafe(_end, arrived.pop(number).ended, trajectory)
            except LostRollout as lost:
                error = lost.__cause__ if isinstance(lost.__cause__, Exception) else lost
                events.call_soon_threadsafe(_fail, arrived.pop(lost.number).ended, error)

    def _interrupted(self) -> str | None:
        return "interrupted" if self._closed else None


def _end(ended: "asyncio.Future[Trajectory]", trajectory: Trajectory) -> None:
    if not ended.done():
        ended.set_result(trajectory)


def _fail(ended: "asyncio.Future[Trajectory]", error: Exception) -> None:
    if not ended.done():
        ended.set_exception(error)
