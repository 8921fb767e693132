"""The global plan: which samples form which pack, from lengths and a seed alone.

State of a run is then a step number: the plan is computed again on resume, whatever happened
in between and however many workers read the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_OPEN_PACKS = 4  # more fill them by less than a hundredth more


class PackPlan:
    """An endless sequence of packs, epoch after epoch, computed an epoch at a time."""

    def __init__(
        self,
        lengths: NDArray[np.int64],
        repeats: NDArray[np.float64],
        *,
        pack_tokens: int,
        reserve: int = 0,
        seed: int,
        name: Callable[[int], str] = str,
    ) -> None:
        """Plan over samples.

        Args:
            lengths: Tokens of each sample with nothing dropped.
            repeats: Times each sample is seen an epoch.
            pack_tokens: Tokens of a pack at most.
            reserve: Of those, left free where more than one sample is in a pack.
            seed: Of the order.
            name: Says which sample it is, for messages.

        Raises:
            ValueError: There are no samples, or one is longer than a pack; the message counts
                and names them.
        """
        if not len(lengths):
            raise ValueError("the data hold no samples; build them first (staged data --help)")
        too_long = np.flatnonzero(lengths > pack_tokens)
        if too_long.size:
            shown = ", ".join(f"{name(i)} ({lengths[i]} tokens)" for i in too_long[:5].tolist())
            more = ", ..." if too_long.size > 5 else ""
            raise ValueError(
                f"{too_long.size} of {len(lengths)} samples exceed pack_tokens={pack_tokens}: "
                f"{shown}{more}; raise pack_tokens to {lengths.max()} or filter the data"
            )
        self._lengths, self._repeats = lengths, repeats
        self._pack_tokens, self._seed = pack_tokens - reserve, seed
        self._epoch = -1
        self._packs: list[list[tuple[int, int]]] = []
        self._first = 0

    def pack(self, number: int) -> list[tuple[int, int]]:
        """Pack number `number` of the run: (sample, epoch) pairs; fastest when numbers grow."""
        if number < self._first:
            self._epoch, self._packs, self._first = -1, [], 0
        while number >= self._first + len(self._packs):
            self._first += len(self._packs)
            self._epoch += 1
            self._packs = list(self._pack_epoch(self._epoch))
        return self._packs[number - self._first]

    def _pack_epoch(self, epoch: int) -> Iterator[list[tuple[int, int]]]:
        # Each sample, in the order drawn, into the first of a few packs that has room; where none
        # has, the oldest is done. One pack at a time leaves a seventh of it free with samples of
        # a quarter of a pack, and ranks wait for the fullest: see benchmarks/packing.py. A best
        # fit over all, or buckets of like lengths, would put like tasks together.
        packs: list[list[tuple[int, int]]] = []
        room: list[int] = []
        for sample in self._order(epoch):
            length = int(self._lengths[sample])
            place = next((at for at, left in enumerate(room) if length <= left), None)
            if place is None:
                if len(packs) == _OPEN_PACKS:
                    room.pop(0)
                    yield packs.pop(0)
                place = len(packs)
                packs.append([])
                room.append(self._pack_tokens)
            packs[place].append((int(sample), epoch))
            room[place] -= length
        yield from packs

    def _order(self, epoch: int) -> Sequence[np.int64]:
        # From these two alone: an epoch needs none of those before it.
        rng = np.random.default_rng((self._seed, epoch))
        whole = np.floor(self._repeats).astype(np.int64)
        extra = rng.random(len(self._repeats)) < self._repeats - whole
        chosen = np.repeat(np.arange(len(self._lengths)), whole + extra)
        return list(rng.permutation(chosen))
