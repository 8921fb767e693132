"""The thread that draws: who gets in, who is let go, and how it ends."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from artist import POLICY, Artist

from staged.loops.events import Event
from staged.loops.policy import Policy
from staged.loops.roles import Roles
from staged.server.fair_queue import QueueFull
from staged.server.history import History
from staged.server.job import Job, JobOrder
from staged.server.scheduler import Draining, Scheduler
from staged.trajectory import Trajectory

WAIT_S = 60


@dataclass
class Band:
    """Who plays; counts as `Playing`."""

    roles: Roles
    policy: Policy = POLICY


class Stage:
    """A history, a player who can be held up, and jobs."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.player = Artist()
        self.go_on, self.drawing = threading.Event(), threading.Event()
        self.go_on.set()
        self.player.while_drawing = self._hold
        self.band = Band(Roles.of(self.player, "artist"))

    def _hold(self) -> None:
        self.drawing.set()
        assert self.go_on.wait(WAIT_S)

    def job(self, prompt: str, client: str = "ann", **more: Any) -> Job:
        order: dict[str, Any] = {
            "client": client,
            "kind": "trajectory",
            "words": prompt,
            "start": Trajectory(prompt=prompt),
            "seed": 1,
            "asked": {},
            "playing": self.band,
            "deadline_s": WAIT_S,
        }
        return Job(JobOrder(**order | more), self.history)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with History(tmp_path, max_kept=100) as history:
        yield Stage(history)


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler(max_running=2, max_queued=4, max_per_client=4)
    scheduler.start()
    yield scheduler
    scheduler.drain(0)
    assert not scheduler._thread.is_alive()


def ended(*jobs: Job) -> list[str]:
    for job in jobs:
        assert job.ended.wait(WAIT_S)
    return [job.feed.kept[-1].name for job in jobs]


def names(job: Job) -> list[str]:
    return [event.name for event in job.feed.kept]


def test_what_is_submitted_is_drawn_and_every_event_is_kept(
    stage: Stage, scheduler: Scheduler
) -> None:
    jobs = [stage.job(name, seed=seed) for seed, name in enumerate("abc")]
    scheduler.submit(jobs)
    ended(*jobs)
    for job in jobs:
        assert names(job)[:2] == ["created", "started"]
        assert stage.history.events(job.id) == job.feed.kept
        found = stage.history.find(job.id)
        assert found is not None
        last = job.feed.kept[-1]
        expected = {"stop": ("complete", None), "failed": ("failed", last.data.get("reason"))}
        assert (found.status, found.reason) == expected[last.name]
        sketches = [e for e in job.feed.kept if e.name == "sketch"]
        assert all(stage.history.picture(e.data["step"]["image"]) for e in sketches)
        kept = job.trajectory
        assert [e.data["index"] for e in job.feed.kept if "step" in e.data] == list(
            range(len(kept.steps) - kept.complete)
        )
    assert scheduler.num_running == scheduler.num_queued == 0


def test_the_queue_is_bounded_and_one_that_waits_is_cancelled_at_once(
    stage: Stage, scheduler: Scheduler
) -> None:
    stage.go_on.clear()
    running = [stage.job("a"), stage.job("b")]
    scheduler.submit(running)
    assert stage.drawing.wait(WAIT_S)
    waiting = [stage.job("c"), stage.job("d")]
    scheduler.submit(waiting)
    with pytest.raises(QueueFull, match="of your trajectories"):
        scheduler.submit([stage.job("e")])
    scheduler.submit([stage.job("f", client="bob"), stage.job("g", client="bob")])
    with pytest.raises(QueueFull, match="4 trajectories wait"):
        scheduler.check_room("bob", 1)
    # While the player is busy, and long before it looks up.
    scheduler.cancel(waiting[0], "cancelled")
    assert waiting[0].ended.is_set() and names(waiting[0]) == ["created", "failed"]
    assert waiting[0].feed.kept[-1].data["reason"] == "cancelled"
    scheduler.submit([stage.job("h", client="bob")])
    stage.go_on.set()


def test_one_that_is_drawn_is_cancelled_alone(stage: Stage, scheduler: Scheduler) -> None:
    stage.go_on.clear()
    first, second = stage.job("a"), stage.job("b")
    scheduler.submit([first, second])
    assert stage.drawing.wait(WAIT_S)
    scheduler.cancel(first, "cancelled")
    stage.go_on.set()
    ended(first, second)
    assert first.feed.kept[-1].data["reason"] == "cancelled" and "sketch" not in names(first)
    assert "sketch" in names(second)
    assert sorted(stage.player.released) == ["a", "b"]


def test_a_deadline_ends_one_that_waits_and_one_that_is_drawn(
    stage: Stage, scheduler: Scheduler
) -> None:
    stage.go_on.clear()
    drawn = [stage.job("a", deadline_s=0.05), stage.job("b")]
    scheduler.submit(drawn)
    assert stage.drawing.wait(WAIT_S)
    late = stage.job("c", deadline_s=0.05)
    scheduler.submit([late])
    threading.Event().wait(0.1)
    stage.go_on.set()
    ended(late, *drawn)
    reasons = [job.feed.kept[-1].data.get("reason") for job in (drawn[0], late)]
    assert reasons == ["deadline", "deadline"] and names(late) == ["created", "failed"]


def test_who_asks_for_much_does_not_keep_others_waiting(stage: Stage, scheduler: Scheduler) -> None:
    stage.go_on.clear()
    much = [stage.job(f"a{n}", client="ann") for n in range(4)]
    scheduler.submit(much)
    assert stage.drawing.wait(WAIT_S)
    little = stage.job("b0", client="bob")
    scheduler.submit([little])
    stage.go_on.set()
    ended(little, *much)
    began = list(dict.fromkeys(name for _, prompts in stage.player.calls for name in prompts))
    assert began.index("b0") < began.index("a3")


def test_a_player_that_breaks_on_one_goes_on_with_the_others(
    stage: Stage, scheduler: Scheduler
) -> None:
    stage.player.breaks_on = "b"
    jobs = [stage.job(name) for name in "abc"]
    scheduler.submit(jobs)
    ended(*jobs)
    assert jobs[1].feed.kept[-1].data["reason"] == "server_error"
    assert "ZeroDivisionError" in jobs[1].feed.kept[-1].data["detail"]
    assert scheduler.error is None and names(jobs[0])[-1] == names(jobs[2])[-1]


def test_a_job_that_cannot_begin_hurts_no_other(stage: Stage, scheduler: Scheduler) -> None:
    class Broken:
        policy = POLICY

        @property
        def roles(self) -> Roles:
            raise OSError("no weights")

    bad, good = stage.job("a", playing=Broken()), stage.job("b")
    scheduler.submit([bad, good])
    ended(bad, good)
    assert bad.feed.kept[-1].data["reason"] == "server_error" and "sketch" in names(good)


def test_an_event_that_cannot_be_told_ends_its_own_job(stage: Stage) -> None:
    def look_at(event: Event) -> Event:
        if event.rollout == 0:
            raise KeyError("a mistake")
        return event

    scheduler = Scheduler(max_running=2, max_queued=4, max_per_client=4, look_at=look_at)
    scheduler.start()
    bad, good = stage.job("a"), stage.job("b")
    scheduler.submit([bad, good])
    assert ended(bad, good)[0] == "failed"
    assert bad.feed.kept[-1].data["reason"] == "server_error" and "sketch" in names(good)
    scheduler.drain(0)


def test_what_cannot_be_kept_is_not_gone_on_with(
    stage: Stage, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(id: str, data: bytes) -> str:
        raise OSError(28, "No space left on device")

    job = stage.job("a")
    monkeypatch.setattr(stage.history, "keep_picture", full)
    scheduler.submit([job])
    assert ended(job) == ["failed"] and job.feed.kept[-1].data["reason"] == "storage"


# --- the end ------------------------------------------------------------------------------------


def test_it_takes_no_more_and_lets_what_is_there_end(stage: Stage, scheduler: Scheduler) -> None:
    stage.go_on.clear()
    jobs = [stage.job(name) for name in "abc"]
    scheduler.submit(jobs)
    assert stage.drawing.wait(WAIT_S)
    draining = threading.Thread(target=scheduler.drain, args=(WAIT_S,))
    draining.start()
    while scheduler.alive:
        threading.Event().wait(0.01)
    with pytest.raises(Draining):
        scheduler.submit([stage.job("d")])
    stage.go_on.set()
    draining.join(WAIT_S)
    assert not draining.is_alive() and all(job.ended.is_set() for job in jobs)
    assert all("sketch" in names(job) for job in jobs)


def test_what_has_not_ended_in_time_is_cancelled(stage: Stage, scheduler: Scheduler) -> None:
    stage.go_on.clear()
    jobs = [stage.job(name) for name in "abc"]
    scheduler.submit(jobs)
    assert stage.drawing.wait(WAIT_S)
    draining = threading.Thread(target=scheduler.drain, args=(WAIT_S,))
    draining.start()
    scheduler.hurry()
    assert jobs[2].ended.wait(WAIT_S)  # it waited
    stage.go_on.set()
    draining.join(WAIT_S)
    reasons = {job.feed.kept[-1].data["reason"] for job in jobs}
    assert not draining.is_alive() and reasons == {"shutdown"}


def test_weights_that_cannot_be_read_are_told(stage: Stage) -> None:
    def load() -> None:
        raise ValueError("damaged")

    told = threading.Event()
    scheduler = Scheduler(max_running=1, max_queued=1, max_per_client=1, warm_up=load)
    scheduler.start(on_broken=told.set)
    assert told.wait(WAIT_S) and str(scheduler.error) == "damaged"
    assert not scheduler.ready.is_set() and not scheduler.alive
    with pytest.raises(Draining):
        scheduler.submit([stage.job("a")])
    scheduler.drain(0)
