"""How trajectories look to clients: steps with addresses of pictures, statuses, costs."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

from staged.server.feed import FeedEvent
from staged.server.record import HistoryRecord

_INTERNAL = ("loss",)
"""Fields of a step that concern training alone."""


class PictureAddresses:
    """Addresses of pictures, which whoever has one may open: they are signed."""

    def __init__(self, secret: bytes) -> None:
        """Sign with a key."""
        self._secret = secret

    def path(self, trajectory: str, name: str) -> str:
        """Return the path of a picture of a trajectory."""
        signature = self._sign(trajectory, name)
        return f"/v1/trajectories/{trajectory}/pictures/{name}?signature={signature}"

    def signed(self, trajectory: str, name: str, signature: str) -> bool:
        """Whether an address was made here."""
        ours = self._sign(trajectory, name)
        return hmac.compare_digest(ours.encode(), signature.encode(errors="replace"))

    def _sign(self, trajectory: str, name: str) -> str:
        words = f"{trajectory}/{name}".encode(errors="replace")
        return hmac.new(self._secret, words, hashlib.sha256).hexdigest()[:32]


class Wire:
    """What clients see of one trajectory."""

    def __init__(self, id: str, addresses: PictureAddresses) -> None:
        """Speak of a trajectory."""
        self._id, self._addresses = id, addresses

    def event(self, event: FeedEvent) -> dict[str, Any]:
        """Return the data of an event."""
        data = {"trajectory": self._id, **event.data}
        if "step" in data:
            data["step"] = self.step(data["step"])
        return data

    def step(self, step: Mapping[str, Any]) -> dict[str, Any]:
        """Return a step; a sketch's image is an address."""
        shown = {name: value for name, value in step.items() if name not in _INTERNAL}
        if "image" in shown:
            shown["image"] = self._addresses.path(self._id, shown["image"])
        return shown

    def trajectory(self, record: HistoryRecord, events: Sequence[FeedEvent]) -> dict[str, Any]:
        """Return the whole, as far as it has come."""
        steps = [self.step(event.data["step"]) for event in events if "step" in event.data]
        end = events[-1].data if events and record.status != "running" else {}
        return {
            **self.summary(record),
            "read_as": record.start["prompt"],
            "asked": record.asked,
            "inputs": [self._addresses.path(self._id, name) for name in record.start["inputs"]],
            "steps": steps,
            "detail": end.get("detail"),
            "ended_by": end.get("ended_by"),
            "provenance": end.get("provenance", {}),
            "last_event": events[-1].id if events else 0,
        }

    def summary(self, record: HistoryRecord) -> dict[str, Any]:
        """Return what a list shows."""
        return {
            "id": self._id,
            "object": "trajectory",
            "kind": record.kind,
            "created": record.created_s,
            "prompt": record.words,
            "seed": record.seed,
            "status": record.status,
            "reason": record.reason,
            "parent": record.parent,
            "num_given": record.num_given,
        }
