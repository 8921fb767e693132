"""One trajectory that a client asked for: what it tells, and until when it may go on.

Its events by name, each with `index`, the place among the steps that it is about, where it is about
one:

    created                           what was asked for, as it was read; then any steps given to it
    started                           it has left the queue
    plan sketch inspection refinement thought answer     a step was made; `step` is it
    retry                             a step failed and is tried again
    stop                              the end
    failed                            the end before its time: a failure, `cancelled`, `deadline`
    text preview                      pass, and are not kept: a text or picture that is forming
"""

from __future__ import annotations

import logging
import math
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import numpy as np

from staged.data_urls import to_data_url
from staged.images import encode_png
from staged.loops.events import (
    Event,
    Failed,
    Previewed,
    Retried,
    SketchDrawn,
    Stopped,
    TextPreviewed,
)
from staged.loops.policy import Policy
from staged.loops.roles import Roles
from staged.protocol import parse_beginning
from staged.server.carrying import DRAWING
from staged.server.feed import Feed, FeedEvent
from staged.server.history import History
from staged.server.pictures import picture_name
from staged.server.record import COMPLETE, FAILED, RUNNING, HistoryRecord
from staged.trajectory import ImageRef, Move, Step, Trajectory, step_to_dict

_PREVIEW_SIDE_PX: Final = 384
_FREE_TEXTS: Final[dict[Move, str]] = {"answer": "answer", "think": "thought"}
_STORAGE: Final = (OSError, sqlite3.Error)

_log = logging.getLogger(__name__)


OnTold = Callable[["Job", str, Mapping[str, Any]], None]


class Playing(Protocol):
    """Who plays, and by which rules; the weights behind it may be loaded at the first question."""

    @property
    def roles(self) -> Roles:
        """Who plays."""
        ...

    @property
    def policy(self) -> Policy:
        """Mode and limits."""
        ...


@dataclass(frozen=True, kw_only=True)
class JobOrder:
    """What a client asks for.

    Attributes:
        client: Who.
        kind: Of the request; see `HistoryRecord`.
        words: The prompt as it was given.
        start: Prompt as it is read, input images, and steps that it is given.
        seed: Of everything drawn at random.
        asked: Settings that the request named.
        playing: Who plays.
        deadline_s: From now.
        drawing: What its pictures carry of how they were drawn; see `staged.server.carrying`.
        parent: The trajectory that it was forked from.
        detached: It goes on when nobody reads it any more.
        watched: Whoever asks is about to read what passes, too.
    """

    client: str
    kind: str
    words: str
    start: Trajectory
    seed: int
    asked: Mapping[str, Any]
    playing: Playing
    deadline_s: float
    drawing: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    detached: bool = False
    watched: bool = False


class Job:
    """A trajectory from its request to its end.

    Attributes:
        id: Its name, which cannot be guessed.
        order: What was asked for.
        feed: What it tells.
        trajectory: Its steps so far.
    """

    def __init__(self, order: JobOrder, history: History, on_told: OnTold | None = None) -> None:
        """Note it in the history.

        Args:
            order: What is asked for.
            history: Keeps it.
            on_told: Called with the job, and the name and data of each event that is kept.
        """
        self._on_told, self._began = on_told, time.monotonic()
        self.id = f"traj_{secrets.token_hex(16)}"
        self.order = order
        self.feed = Feed(awaited=order.watched)
        self._history, self._kept = history, True
        self._deadline = time.monotonic() + order.deadline_s
        self._reason: str | None = None
        self._end_facts: Mapping[str, Any] = {}
        self.ended = threading.Event()
        self.trajectory = _named(order.start)
        start = replace(self.trajectory, steps=(), provenance={DRAWING: dict(order.drawing)})
        history.add(
            HistoryRecord(
                id=self.id,
                client=order.client,
                kind=order.kind,
                created_s=time.time(),
                start=start.to_dict(),
                words=order.words,
                seed=order.seed,
                asked=order.asked,
                parent=order.parent,
                num_given=len(order.start.steps),
            ),
            [ref.png for ref in order.start.images if ref.png is not None],
        )
        self._tell("created", {"read_as": order.start.prompt, "seed": order.seed})
        for index, step in enumerate(self.trajectory.steps):
            self._tell_step(index, step, given=True)

    @property
    def client(self) -> str:
        """Whose it is."""
        return self.order.client

    def interrupt(self) -> str | None:
        """Why it is to end before its time, if it is; see `staged.roles.Interrupt`."""
        if self._reason is None and time.monotonic() > self._deadline:
            return "deadline"
        return self._reason

    @property
    def age_s(self) -> float:
        """Since it was asked for."""
        return time.monotonic() - self._began

    @property
    def reason(self) -> str | None:
        """Why it failed, once it has."""
        return self._end_facts.get("reason")

    @property
    def detail(self) -> str | None:
        """More on why it failed."""
        return self._end_facts.get("detail")

    @property
    def picture(self) -> ImageRef:
        """The newest that was drawn; there must be one."""
        sketch = self.trajectory.last_sketch
        assert sketch is not None, "there is no picture"
        return sketch.image

    def watched(self) -> bool:
        """Whether anybody reads what passes."""
        return self.feed.watched

    def give_up(self, reason: str) -> None:
        """Have it end before its time; the first reason stands."""
        self._reason = self._reason or reason

    # --- what becomes of it, told by the scheduler -------------------------------------------

    def begin(self) -> None:
        """It has left the queue."""
        self._tell("started", {})

    def take(self, event: Event) -> None:
        """Keep and tell what its loop tells."""
        match event:
            case Previewed():
                if self.feed.watched:
                    self.feed.show("preview", _preview(event))
            case TextPreviewed():
                if self.feed.watched and (begun := _begun(event)):
                    self.feed.show("text", {"index": event.index, "step": begun})
            case Retried(index=index, reason=reason, detail=detail, attempt=attempt):
                facts = {"index": index, "reason": reason, "detail": detail, "attempt": attempt}
                self._tell("retry", facts)
            case Stopped(trajectory=trajectory, ended_by=ended_by):
                self._end(trajectory, "stop", {"ended_by": ended_by})
            case Failed(trajectory=trajectory, reason=reason, detail=detail):
                self._end(trajectory, "failed", {"reason": reason, "detail": detail[:500]})
            case SketchDrawn(index=index, step=step):
                name = self._keep_picture(step.image.loaded)
                step = replace(step, image=replace(step.image, name=name))
                self._tell_step(index, step)
            case _:
                self._tell_step(event.index, event.step)

    def fail(self, reason: str, detail: str) -> None:
        """End it where it stands."""
        if not self.ended.is_set():
            self._end(self.trajectory, "failed", {"reason": reason, "detail": detail[:500]})

    # --- telling -----------------------------------------------------------------------------

    def _tell_step(self, index: int, step: Step, *, given: bool = False) -> None:
        """Tell of a step that is named as it is kept; `given` ones are there already."""
        if not given:
            self.trajectory = self.trajectory.extend(step)
        data = step_to_dict(step, index)
        self._tell(data["step"], {"index": index, "step": data, "given": given})

    def _end(self, trajectory: Trajectory, name: str, data: Mapping[str, Any]) -> None:
        provenance = trajectory.provenance
        steps = self.trajectory.steps
        if trajectory.complete and not self.trajectory.complete:
            steps = (*steps, trajectory.steps[-1])
        self.trajectory = replace(self.trajectory, steps=steps, provenance=provenance)
        self._end_facts = data
        status, reason = (COMPLETE, None) if name == "stop" else (FAILED, data["reason"])
        data = {**data, "index": len(steps) - (name == "stop"), "provenance": provenance}
        self._tell(name, data, last=True, status=status, reason=reason)
        self.ended.set()

    def _keep_picture(self, data: bytes) -> str:
        if self._kept:
            try:
                return self._history.keep_picture(self.id, data)
            except _STORAGE as error:
                self._lose_history(error)
        return picture_name(data)

    def _tell(
        self,
        name: str,
        data: Mapping[str, Any],
        *,
        last: bool = False,
        status: str = RUNNING,
        reason: str | None = None,
    ) -> None:
        event = FeedEvent(id=self.feed.num_kept + 1, name=name, data=data)
        if self._kept:
            try:
                self._history.tell(self.id, event, status=status, reason=reason)
            except _STORAGE as error:
                self._lose_history(error)
        self.feed.tell(name, data, last=last)
        if self._on_told is not None:
            self._on_told(self, name, data)

    def _lose_history(self, error: Exception) -> None:
        """What cannot be kept is not gone on with; whoever reads it is told."""
        self._kept = False
        self.give_up("storage")
        _log.error("%s cannot be kept: %s", self.id, error)


def _named(trajectory: Trajectory) -> Trajectory:
    """Name its images as they are kept."""
    refs = [replace(ref, name=picture_name(ref.loaded)) for ref in trajectory.images]
    return trajectory.with_images(refs)


def _begun(event: TextPreviewed) -> dict[str, str]:
    """What is there of a step that is being written."""
    if set(event.moves) <= set(_FREE_TEXTS):
        return {"step": _FREE_TEXTS[event.moves[0]], "text": event.text}
    return parse_beginning(event.text)


def _preview(event: Previewed) -> dict[str, Any]:
    """What is shown of a forming picture, small enough to be sent often."""
    stride = max(1, math.ceil(max(event.pixels.shape[:2]) / _PREVIEW_SIDE_PX))
    small = np.ascontiguousarray(event.pixels[::stride, ::stride])
    return {
        "index": event.index,
        "flow_step": event.flow_step,
        "num_flow_steps": event.num_flow_steps,
        "image": to_data_url(encode_png(small)),
    }
