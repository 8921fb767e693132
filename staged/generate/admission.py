"""How many trajectories advance together: as many as their caches have room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from staged.device_memory import free_memory, gib, memory_of
from staged.engine.memory import Footprint
from staged.generate.lengths import Lengths

MAX_BATCH_SIZE: Final = 64
"""Trajectories at a time, however much memory there is: more gain nothing."""


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Who is let in.

    Attributes:
        batch_size: Trajectories that advance together, at most.
        max_cached_tokens: Tokens of cache for all of them.
    """

    batch_size: int
    max_cached_tokens: int


def require_weights(footprint: Footprint, name: str) -> None:
    """Make sure that a model and one call of it fit its device; nothing has been read then.

    Args:
        footprint: Of the model.
        name: Its name.

    Raises:
        ValueError: The device has less memory in all.
    """
    weights, working = footprint.weights, footprint.working(0)
    there = memory_of(footprint.device)
    if weights + working > there:
        narrower = ", dtype bfloat16 halves the weights" if footprint.dtype.itemsize > 2 else ""
        if footprint.quantization == "none":
            narrower += ", quantization int8 takes a byte for each of most"
        raise ValueError(
            f"{name} takes {gib(weights)} GiB of weights and {gib(working)} GiB for what it "
            f"computes at a time, and {footprint.device} has {gib(there)}: choose a device with "
            f"more memory{narrower}"
        )


def room_for_caches(footprint: Footprint) -> int:
    """Bytes for caches and calls, of what is free now, once the weights are there too."""
    return footprint.promised(free_memory(footprint.device)) - footprint.weights


def admit(
    batch_size: int | None,
    footprint: Footprint,
    lengths: Lengths,
    *,
    room: int,
    num_writing: int,
    text: int,
    page_size: int,
    most: int = MAX_BATCH_SIZE,
) -> Admission:
    """Let trajectories in, as many as fit.

    By themselves as many come in as are at home at their usual length, with one of them at its
    longest. More may be asked for, up to what fits at the shortest: then what was forgotten is read
    again. Nothing that a trajectory becomes depends on it.

    Args:
        batch_size: Trajectories asked for; None for as many as fit.
        footprint: Of the model.
        lengths: Of a trajectory.
        room: Bytes for caches and calls.
        num_writing: Of them, those that write at a time, each with room for a text.
        text: Tokens of a text at most.
        page_size: Tokens of a page, of which each is left with some that are half full.
        most: Trajectories that come in by themselves, at most.

    Raises:
        ValueError: They do not fit; the message says how many do.
    """
    tokens, spare = footprint.tokens_in(room, lengths.longest), lengths.longest - lengths.usual
    rounding = 2 * footprint.num_branches * page_size

    def needed(number: int, each: int) -> int:
        return number * (each + rounding) + min(number, num_writing) * (text + page_size)

    fitting = 0
    while fitting < most and needed(fitting + 1, lengths.usual) + spare <= tokens:
        fitting += 1
    at_most = tokens // lengths.shortest
    asked = batch_size or max(fitting, 1)
    if asked > at_most:
        there = f"{footprint.device} has {gib(max(room, 0))} GiB free beside the weights"
        each = f"each takes at least {gib(lengths.shortest * footprint.token)} GiB of cache"
        calls = f"{gib(footprint.working(lengths.longest))} GiB go to what is computed at a time"
        if not at_most:
            raise ValueError(
                f"no trajectory fits: {there}, {calls}, {each}; free some of it, choose a device "
                "with more memory, or draw smaller pictures"
            )
        raise ValueError(
            f"batch size {asked}: {there}, {calls}, {each}, so {at_most} fit at the shortest and "
            f"{max(fitting, 1)} with room to grow, which `auto` takes"
        )
    longest = needed(asked, lengths.longest)
    return Admission(batch_size=asked, max_cached_tokens=min(tokens, longest))
