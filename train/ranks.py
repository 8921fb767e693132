"""The processes of one run: who they are, what they tell one another, how one's end reaches all.

What passes here is small (counts, losses, errors) and goes over gloo between CPUs; tensors travel
by the collectives of `train.sharding`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from staged.devices import choose_device
from staged.first_line import first_line
from staged.jobs.rank import Rank, rank_of
from train.settings import ParallelSettings

T = TypeVar("T")

_FAILURE, _LEFT = "failure", "left"
_POLL = timedelta(seconds=1)
_MEETING = timedelta(days=7)
"""A limit that torch wants; where one rank has more to do than another, none is meant."""
_LAST_WORDS = timedelta(seconds=3)
"""How long one waits for why another left: whoever fails says so before its connections end."""
_OF_CONNECTIONS = (
    *("gloo", "Connection ", "connection ", "NCCL", "Socket", "socket", "Timed out", "timed out"),
    *("Broken pipe", "recv", "peer"),
)


class Ranks:
    """What a process knows of its run's others; by default there are none.

    Attributes:
        rank: Which of them this one is.
        number: Of this one, from 0.
        world_size: How many there are.
        group: For what passes between CPUs; None where this process is alone.
        background_group: The same for a thread that works beside the main one.
    """

    def __init__(
        self,
        rank: Rank | None = None,
        store: Store | None = None,
        silence: timedelta | None = None,
    ) -> None:
        """Take what `joined` found out, and how long ranks wait for one another within a step."""
        self.rank = rank or Rank()
        self.number, self.world_size = self.rank.number, self.rank.world_size
        # Two threads must not take turns in one group, or ranks would hear of one what they expect
        # of the other.
        alone = store is None
        # A group without a limit of its own gets torch's, whatever the process group was given.
        self.group = None if alone else dist.new_group(backend="gloo", timeout=silence)
        self.background_group = None if alone else dist.new_group(backend="gloo", timeout=silence)
        self._meeting = None if alone else dist.new_group(backend="gloo", timeout=_MEETING)
        self._store = store
        self._turn = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes, logs and shows."""
        return self.number == 0

    def gather(self, value: T) -> list[T]:
        """Everyone's value, by rank; all must call it at the same point."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def meet(self) -> None:
        """Wait until all have come here, for as long as their work takes; a lost one ends it."""
        if self.world_size > 1:
            dist.all_gather_object([None] * self.world_size, None, group=self._meeting)

    def any(self, flag: bool) -> bool:
        """Whether it is so on any rank; all must call it at the same point."""
        return any(self.gather(flag))

    def first(self, work: Callable[[], T], *, meanwhile: Callable[[], object] | None = None) -> T:
        """Do something on rank 0 alone, for as long as it takes, while the others wait.

        Args:
            work: Returns what JSON can carry.
            meanwhile: What the others do about every second.

        Returns:
            What it returned, on every rank.

        Raises:
            ValueError: It failed on rank 0, or another rank failed meanwhile, with such an error.
            OSError: As well.
        """
        if self._store is None:
            return work()
        self._turn += 1
        key = f"first/{self._turn}"
        if self.is_first:
            done = work()
            self._store.set(key, json.dumps(done))
            return done
        # No collective: those give up after some time, and encoding a data set may take hours.
        while not self._comes(key, _POLL):
            if self._store.check([_FAILURE]):
                raise self._told()
            if meanwhile is not None:
                meanwhile()
        value: T = json.loads(self._store.get(key))
        return value

    def first_unless(self, stop: Callable[[], bool], work: Callable[[Callable[[], bool]], T]) -> T:
        """As `first`, with work that can be broken off from any rank.

        Args:
            stop: Whether this rank wants that; asked now and then.
            work: Is given what to ask whether to go on: whether any rank wants it to stop, or has
                failed.
        """
        store, key = self._store, f"stop/{self._turn + 1}"
        if store is None:
            return work(stop)

        def asked() -> bool:
            return stop() or store.check([key]) or store.check([_FAILURE])

        def ask() -> None:
            if stop():
                store.set(key, "")

        return self.first(lambda: work(asked), meanwhile=ask)

    def first_opens(self, read: Callable[[], T]) -> T:
        """Open what the first one to do so prepares for the others, such as a cache; see `first`.

        Where machines do not share what is prepared, each prepares its own: however long that
        takes one of them, all wait for it, unless it fails or is lost.

        Args:
            read: Called once on every rank, on rank 0 before the others.

        Raises:
            ValueError: It failed on a rank with such an error.
            OSError: As well, or a rank was lost.
        """
        opened: list[T] = []
        self.first(lambda: opened.append(read()))
        if not opened:
            opened.append(read())
        self.meet()
        return opened[0]

    def require_same(self, what: str, value: str) -> None:
        """Require a text to be the same on all ranks.

        Raises:
            ValueError: It is not; names the first two ranks that differ, and what they have.
        """
        values = self.gather(value)
        for number, other in enumerate(values):
            if other != values[0]:
                raise ValueError(
                    f"{what} differ between the processes of this run: rank 0 has {values[0]}, "
                    f"rank {number} has {other}; start all of them with the same"
                )

    def tell(self, error: BaseException) -> None:
        """Leave word of why this process ends, unless another one did before."""
        if self._store is None:
            return
        kind = "ValueError" if isinstance(error, ValueError) else "OSError"
        text = str(error) if isinstance(error, ValueError | OSError) else repr(error)
        try:
            self._store.compare_set(
                _FAILURE, "", json.dumps({"rank": self.number, "kind": kind, "text": text})
            )
        except RuntimeError:  # the store has gone with its host, and with it whoever would read
            return

    def leave(self) -> None:
        """End after an error; whoever holds the store waits until the others have read from it."""
        if self._store is None:
            return
        try:
            left = self._store.add(_LEFT, 1)
            deadline = time.monotonic() + _LAST_WORDS.total_seconds()
            while self.is_first and left < self.world_size and time.monotonic() < deadline:
                time.sleep(0.05)
                left = self._store.add(_LEFT, 0)
        except RuntimeError:
            return  # as in `tell`

    def explained(self, error: BaseException) -> BaseException:
        """What lies behind an error: a lost connection is how another process's end shows here."""
        if self._store is None or not _is_of_connections(error):
            return error
        try:
            if self._comes(_FAILURE, _LAST_WORDS):
                return self._told()
        except RuntimeError:
            pass  # as in `tell`
        return OSError(
            f"rank {self.number} of {self.world_size} has lost another process of this run: it was "
            "killed, or its machine or the network failed. The same command continues from the "
            f"last state ({first_line(error)})"
        )

    def _comes(self, key: str, within: timedelta) -> bool:
        assert self._store is not None
        try:
            self._store.wait([key], within)
        except dist.DistStoreError:
            return False
        return True

    def _told(self) -> Exception:
        assert self._store is not None
        told = json.loads(self._store.get(_FAILURE))
        kind = ValueError if told["kind"] == "ValueError" else OSError
        return kind(f"rank {told['rank']}: {told['text']}")


@contextmanager
def joined(settings: ParallelSettings, device: str = "cpu") -> Iterator[Ranks]:
    """Find the other processes of this run, as torchrun and its like name them, and leave together.

    One that fails tells the others why, and they raise the same error instead of that of a broken
    connection. Without a launcher the process is alone, and nothing of torch.distributed is used.

    Args:
        settings: How long to wait for one another.
        device: As in `choose_device`; on CUDA devices tensors travel by NCCL.

    Raises:
        OSError: Not all came within `join_timeout_s`, or one was lost later.
        ValueError: The launcher's variables are incomplete, or it has started one process for many.
    """
    rank = rank_of(None, None)
    if rank.world_size == 1:
        _refuse_one_for_many()
        yield Ranks()
        return
    store = _meet(rank, settings, choose_device(device))
    ranks = Ranks(rank, store, timedelta(seconds=settings.silence_timeout_s))
    try:
        yield ranks
        ranks.meet()  # the first may hold the store, and others still have to read from it
    except BaseException as error:
        cause = ranks.explained(error)
        ranks.tell(cause)
        ranks.leave()
        if cause is error:
            raise
        raise cause from error
    else:
        dist.destroy_process_group()


def _refuse_one_for_many() -> None:
    # It sets the address for several processes, and then starts one.
    if (
        "WORLD_SIZE" not in os.environ
        and {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= os.environ.keys()
    ):
        raise ValueError(
            "accelerate launch has started one process, not --num_processes: with --cpu it always "
            "does; give --multi_gpu instead (for a CPU too, with device=cpu), or use torchrun"
        )


def _meet(rank: Rank, settings: ParallelSettings, device: torch.device) -> Store:
    """Connect to all others; returns the store that they share."""
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        raise ValueError(
            f"WORLD_SIZE is {rank.world_size}, but {' and '.join(missing)} not set: start with "
            "torchrun or accelerate launch, or set both (docs/launch.md)"
        )
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    silence = timedelta(seconds=settings.silence_timeout_s)
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=settings.join_timeout_s)))
        backend = "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(
            backend,
            store=PrefixStore("group", store),
            rank=rank.number,
            world_size=rank.world_size,
            timeout=silence,
        )
    except (RuntimeError, ValueError) as error:
        raise OSError(
            f"rank {rank.number} did not find all {rank.world_size} processes of this run at "
            f"{place} within {settings.join_timeout_s:g} s (parallel.join_timeout_s): one is "
            f"missing, or cannot reach it ({first_line(error)})"
        ) from error
    return PrefixStore("run", store)


def _is_of_connections(error: BaseException) -> bool:
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _OF_CONNECTIONS)
