"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from staged.server.job import Job

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600)


class ServerMetrics:
    """Counters, gauges and histograms of one server; see docs/server.md for their meaning."""

    def __init__(self) -> None:
        """Count from 0."""
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "staged_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._request_s = Histogram(
            "staged_http_request_seconds",
            "From a request's arrival to the end of its answer, streams included.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._trajectories = Counter(
            "staged_trajectories",
            "Trajectories that ended; end is complete, or the reason of the failure.",
            ["kind", "end"],
            registry=registry,
        )
        self._queue_s = Histogram(
            "staged_queue_seconds", "That trajectories waited.", buckets=_SECONDS, registry=registry
        )
        self._trajectory_s = Histogram(
            "staged_trajectory_seconds",
            "From a trajectory's request to its end.",
            ["kind"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._steps = Counter("staged_steps", "Steps that were made.", ["step"], registry=registry)
        self._flow_steps = Counter(
            "staged_flow_steps",
            "Network evaluations of sketches that were drawn.",
            registry=registry,
        )
        self._retries = Counter(
            "staged_retries",
            "Steps that failed and were tried again.",
            ["reason"],
            registry=registry,
        )

    def watch(self, name: str, words: str, value: Callable[[], float]) -> None:
        """Tell a value that is looked up whenever somebody asks."""
        Gauge(name, words, registry=self._registry).set_function(value)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_s.labels(route).observe(seconds)

    def told(self, job: Job, name: str, data: Mapping[str, Any]) -> None:
        """Count what a trajectory told; see `staged.server.job` for the names."""
        kind = job.order.kind
        match name:
            case "started":
                self._queue_s.observe(job.age_s)
            case "retry":
                self._retries.labels(data["reason"]).inc()
            case "stop" | "failed":
                self._trajectories.labels(kind, data.get("reason", "complete")).inc()
                self._trajectory_s.labels(kind).observe(job.age_s)
            case _ if data.get("given") is False:
                self._steps.labels(name).inc()
                self._flow_steps.inc(data["step"].get("num_flow_steps", 0))

    def text(self) -> bytes:
        """Write all of it in Prometheus' text format."""
        return generate_latest(self._registry)
