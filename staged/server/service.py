"""What the server does, whoever asks in which form: draw, fork, watch, cancel, remember."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from staged.generate.model import DrawingModel
from staged.generate.signing import PictureSigner
from staged.generate.telling import looked_at
from staged.server.carrying import DRAWING, as_sent
from staged.server.errors import ApiError, busy
from staged.server.fair_queue import QueueFull
from staged.server.feed import FeedEvent
from staged.server.history import History
from staged.server.job import Job, JobOrder
from staged.server.metrics import ServerMetrics
from staged.server.reading import OrderReader
from staged.server.record import RUNNING, HistoryRecord
from staged.server.scheduler import Draining, Scheduler
from staged.server.settings import ServeSettings
from staged.server.wire import PictureAddresses
from staged.trajectory import ImageRef, Trajectory

_log = logging.getLogger(__name__)


class DrawingService:
    """A model, who draws with it, and what was drawn.

    Attributes:
        settings: Of the server.
        model: The checkpoint, as the server is set up.
        history: What was asked for.
        reader: Makes orders of requests.
        scheduler: Who draws.
        addresses: Of pictures.
        metrics: What is counted.
        began_s: When it began, in seconds since 1970.
    """

    def __init__(
        self,
        settings: ServeSettings,
        model: DrawingModel,
        history: History,
        signer: PictureSigner | None = None,
    ) -> None:
        """Draw nothing yet.

        Args:
            settings: Of the server.
            model: Not loaded yet.
            history: Opened.
            signer: Signs pictures that are sent.

        Raises:
            ValueError: The model does not fit its device.
        """
        self.settings, self.model, self.history = settings, model, history
        self._signer = signer
        self.began_s = time.time()
        self.metrics = ServerMetrics()
        self.addresses = PictureAddresses(history.secret)
        limits = settings.limits
        self.scheduler = Scheduler(
            max_running=model.admission.batch_size,
            max_queued=limits.max_queued,
            max_per_client=limits.max_per_client,
            warm_up=lambda: model.engine,
            look_at=looked_at,
        )
        self.reader = OrderReader(settings, model)
        self._jobs: dict[str, Job] = {}

        for name, words, value in (
            ("staged_queued", "Trajectories that wait.", lambda: self.scheduler.num_queued),
            ("staged_running", "Trajectories that advance.", lambda: self.scheduler.num_running),
            ("staged_cached_tokens", "Tokens of cache that are held.", model.num_cached_tokens),
            ("staged_readers", "Streams that are open.", self._num_readers),
        ):
            self.metrics.watch(name, words, value)

    # --- asking for trajectories -------------------------------------------------------------

    def submit(self, orders: Sequence[JobOrder]) -> list[Job]:
        """Let trajectories wait for their turn.

        Raises:
            ApiError: There is no room for them (429), or the server is ending (503).
        """
        jobs: list[Job] = []
        try:
            # Looked at before anything is written: who asks too much costs nothing.
            self.scheduler.check_room(orders[0].client, len(orders))
            jobs = [Job(order, self.history, self._told) for order in orders]
            self.scheduler.submit(jobs)
        except (QueueFull, Draining) as error:
            for job in jobs:
                self.history.delete(job.id)
            if isinstance(error, Draining):
                raise busy(str(error), status=503, code="ending", after_s=10) from None
            raise busy(str(error)) from None
        self._jobs = {id: job for id, job in self._jobs.items() if not job.ended.is_set()}
        self._jobs |= {job.id: job for job in jobs}
        return jobs

    def _told(self, job: Job, name: str, data: Mapping[str, Any]) -> None:
        self.metrics.told(job, name, data)
        if name not in ("stop", "failed"):
            return
        facts: dict[str, Any] = {
            "trajectory": job.id,
            "kind": job.order.kind,
            "client": job.client,
            "end": data.get("reason", "complete"),
            "s": round(job.age_s, 3),
            "steps": len(job.trajectory.steps),
            "flow_steps": job.trajectory.num_flow_steps,
        }
        if self.settings.log_prompts:
            facts["prompt"] = job.order.words
        _log.info("trajectory", extra={"facts": facts})

    def _num_readers(self) -> int:
        return sum(job.feed.num_readers for job in list(self._jobs.values()))

    # --- those that are there ----------------------------------------------------------------

    def record(self, client: str, id: str) -> HistoryRecord:
        """Find a client's trajectory.

        Raises:
            ApiError: It has none of that name (404).
        """
        record = self.history.find(id)
        if record is None or record.client != client:
            raise ApiError(404, f"no trajectory {id[:80]!r}", code="not_found", param="id")
        return record

    def job(self, id: str) -> Job | None:
        """Return a trajectory that waits or advances, or has just ended; None of another."""
        return self._jobs.get(id)

    def events(self, record: HistoryRecord, after: int = 0) -> list[FeedEvent]:
        """Read what a trajectory has told so far."""
        return self.history.events(record.id, after)

    def trajectory(self, record: HistoryRecord) -> Trajectory:
        """Read a trajectory as far as it has come, its images loaded, without a stop."""
        steps = [event.data["step"] for event in self.events(record) if "step" in event.data]
        named = Trajectory.from_dict({**record.start, "steps": steps})
        return named.with_images(
            [
                ImageRef(png=self.history.picture(ref.name), name=ref.name)
                for ref in named.images
                if ref.name is not None
            ]
        )

    def picture(self, id: str, name: str) -> bytes:
        """Read a picture of a trajectory, as it is sent.

        Raises:
            ValueError: It is gone.
        """
        record = self.history.find(id)
        if record is None:
            raise ValueError(f"no trajectory {id!r:.80}")
        drawing = record.start.get("provenance", {}).get(DRAWING, {})
        return as_sent(
            self.trajectory(record),
            name,
            drawing=drawing,
            seed=record.seed,
            id=id,
            signer=self._signer,
        )

    def picture_of(self, job: Job) -> bytes:
        """Return the newest picture of a job, as it is sent; there must be one."""
        name, order = job.picture.name, job.order
        assert name is not None, "it is named as it is kept"
        return as_sent(
            job.trajectory,
            name,
            drawing=order.drawing,
            seed=order.seed,
            id=job.id,
            signer=self._signer,
        )

    def cancel(self, record: HistoryRecord) -> None:
        """End a trajectory before its time, if it has not ended."""
        if (job := self.job(record.id)) is not None:
            self.scheduler.cancel(job, "cancelled")

    def delete(self, record: HistoryRecord) -> None:
        """Forget a trajectory that has ended.

        Raises:
            ApiError: It has not (409).
        """
        if record.status == RUNNING:
            raise ApiError(409, "it has not ended; cancel it first", code="running")
        self.history.delete(record.id)
