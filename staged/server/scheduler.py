"""One thread that draws: it admits jobs fairly, advances them side by side, and lets them go.

Requests come from other threads. What they change is behind one lock, which is never held while a
player plays, so that nobody who asks, cancels or looks waits for a picture.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from staged.loops.events import Event
from staged.loops.rollouts import LostRollout, Rollouts
from staged.server.fair_queue import FairQueue
from staged.server.job import Job

_log = logging.getLogger(__name__)
BROKEN: Final = "server_error"
"""Why a trajectory failed that a mistake of ours ended."""
_LAST_CALL_S: Final = 30.0
"""For a player to look up once everything is cancelled."""


class Draining(RuntimeError):
    """The server takes no more: it is ending."""


class Scheduler:
    """Draws what was submitted, until it is stopped."""

    def __init__(
        self,
        *,
        max_running: int,
        max_queued: int,
        max_per_client: int,
        warm_up: Callable[[], object] = lambda: None,
        look_at: Callable[[Event], Event] = lambda event: event,
    ) -> None:
        """Draw nothing yet; see `start`.

        Args:
            max_running: Jobs that advance side by side.
            max_queued: Jobs that wait.
            max_per_client: Jobs of one client, waiting or advancing.
            warm_up: What to do first, such as to load weights.
            look_at: Done to every event before it is told.
        """
        self._rollouts = Rollouts(room=max_running, on_event=self._on_event, preview_texts=True)
        self._queue = FairQueue[Job](max_items=max_queued, max_per_client=max_per_client)
        self._warm_up, self._look_at = warm_up, look_at
        self._running: dict[int, Job] = {}
        self._joining: Job | None = None
        self._changed = threading.Condition()
        self._draining = self._stopped = self._hurrying = False
        self._on_broken: Callable[[], object] = lambda: None
        self.error: Exception | None = None
        """Why the thread ended by itself, if it did."""
        self.ready = threading.Event()
        """Set once it is warm."""
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    @property
    def num_queued(self) -> int:
        """Jobs that wait."""
        return len(self._queue)

    @property
    def num_running(self) -> int:
        """Jobs that advance."""
        return len(self._running)

    @property
    def alive(self) -> bool:
        """Whether it takes jobs."""
        return self.error is None and not self._draining

    def start(self, on_broken: Callable[[], object] = lambda: None) -> None:
        """Begin to draw; `on_broken` is called where that ends by an error."""
        self._on_broken = on_broken
        self._thread.start()

    def check_room(self, client: str, number: int) -> None:
        """Make sure that a client's jobs would be taken now; see `submit` for errors."""
        with self._changed:
            self._check_open()
            self._queue.check(client, number)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Let jobs wait for their turn, all of them or none.

        Raises:
            QueueFull: There is no room for them.
            Draining: The server is ending.
        """
        with self._changed:
            self._check_open()
            self._queue.put(jobs)
            self._changed.notify_all()

    def _check_open(self) -> None:
        if not self.alive:
            raise Draining("the server is ending; ask another, or come again")

    def cancel(self, job: Job, reason: str) -> None:
        """End a job: at once where it waits, or as soon as whoever plays looks up."""
        job.give_up(reason)
        with self._changed:
            waited = self._queue.remove(job)
            self._changed.notify_all()
        if waited:
            job.fail(reason, reason)

    def drain(self, timeout_s: float) -> None:
        """Take no more, let what is there come to its end, and stop.

        Args:
            timeout_s: After which what is left is cancelled as `shutdown`.
        """
        with self._changed:
            self._draining = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._idle or self._hurrying or self.error is not None, timeout_s
            )
            left = [*self._queue.items(), *self._running.values()]
        for job in left:
            self.cancel(job, "shutdown")
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(_LAST_CALL_S)

    def hurry(self) -> None:
        """Wait no longer for what is there."""
        with self._changed:
            self._hurrying = True
            self._changed.notify_all()

    # --- the thread --------------------------------------------------------------------------

    @property
    def _idle(self) -> bool:
        return not self._running and not len(self._queue)

    def _run(self) -> None:
        try:
            self._warm_up()
            self.ready.set()
            while self._wait():
                self._admit()
                self._advance()
        except Exception as error:
            _log.exception("the scheduler broke")
            with self._changed:
                self.error = error
                left = [*self._queue.items(), *self._running.values()]
                self._changed.notify_all()
            for job in left:
                job.fail(BROKEN, "the server broke")
            self._on_broken()

    def _wait(self) -> bool:
        """Wait until there is something to do; False where there will be nothing more."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._idle)
            return not (self._stopped and self._idle)

    def _admit(self) -> None:
        for job, reason in self._expired():
            job.fail(reason, "while it waited")
        while (next_job := self._next()) is not None:
            self._join(next_job)

    def _expired(self) -> list[tuple[Job, str]]:
        with self._changed:
            found = [(job, job.interrupt()) for job in self._queue.items()]
            expired = [(job, reason) for job, reason in found if reason is not None]
            for job, _ in expired:
                self._queue.remove(job)
        return expired

    def _next(self) -> Job | None:
        with self._changed:
            return self._queue.take() if self._rollouts.room else None

    def _join(self, job: Job) -> None:
        """Let a job in; from here on its events are this thread's to tell."""
        self._joining = job
        try:
            job.begin()
            number = self._rollouts.join(
                job.order.start,
                seed=job.order.seed,
                roles=job.order.playing.roles,
                policy=job.order.playing.policy,
                interrupt=job.interrupt,
                watched=job.watched,
            )
        except Exception as error:
            _log.exception("%s could not begin", job.id)
            job.fail(BROKEN, f"it could not begin: {type(error).__name__}")
            with self._changed:
                self._queue.done(job)
                self._changed.notify_all()
            return
        with self._changed:
            self._running[number] = job

    def _advance(self) -> None:
        try:
            ended = [number for number, _ in self._rollouts.advance()]
        except LostRollout as lost:
            job, ended = self._running[lost.number], [lost.number]
            _log.error("a player broke on %s", job.id, exc_info=lost.__cause__)
            job.fail(BROKEN, f"a player broke: {type(lost.__cause__).__name__}")
        for number in ended:
            self._leave(number)

    def _leave(self, number: int) -> None:
        with self._changed:
            job = self._running.pop(number)
            self._queue.done(job)
            self._changed.notify_all()
        job.fail(BROKEN, "its end could not be told")  # unless it has ended, as it should have

    def _on_event(self, event: Event) -> None:
        job = self._running.get(event.rollout, self._joining)
        assert job is not None, "events are of those who have joined"
        try:
            job.take(self._look_at(event))
        except Exception:
            # A mistake in telling of one is no reason to end the others.
            _log.exception("%s: an event could not be told", job.id)
            job.give_up(BROKEN)
