"""The lock of a run: one process at a time. It is known without torch, which is slow to load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from staged.jobs import locks
from staged.jobs.rank import rank_of

if TYPE_CHECKING:
    from train.ranks import Ranks

_LOCK = "lock"


def require_nobody_yet(out: Path) -> None:
    """As `require_nobody_in`, before anything slow is imported; several ranks are asked later.

    Raises:
        ValueError: Another process trains there.
    """
    if rank_of(None, None).world_size == 1:
        require_nobody_in(out)


@contextmanager
def alone_together(out: Path, ranks: Ranks, *, way_out: str = "") -> Iterator[None]:
    """As `alone_in`, for all ranks of a run: the first has the lock, and all are told if it cannot.

    Args:
        out: The run's folder.
        ranks: That share the work.
        way_out: As in `alone_in`.

    Raises:
        ValueError: Another process trains there.
        OSError: The folder cannot be made.
    """
    with ExitStack() as leaving:
        ranks.first(lambda: leaving.enter_context(alone_in(out, way_out=way_out)))
        yield


def alone_in(out: Path, *, way_out: str = "") -> AbstractContextManager[None]:
    """Keep other processes out of the run while the block lasts; a killed one blocks nobody.

    The folder is made if need be, and goes away again if it stays empty. In a process that has the
    run to itself it changes nothing.

    Args:
        out: The run's folder.
        way_out: What else can be done where another process trains there.

    Raises:
        ValueError: Another process trains there; says which.
        OSError: The folder cannot be made.
    """
    return locks.alone_in(
        out,
        _LOCK,
        f"another process is training in {out}; wait for it, end it, or choose another `out`"
        + way_out,
        forks=True,
    )


def require_nobody_in(out: Path) -> None:
    """As `alone_in`, for now: to tell early, without a trace in the folder.

    Raises:
        ValueError: Another process trains there.
    """
    if (out / _LOCK).is_file():
        with alone_in(out):
            pass
