"""A server process: it listens, says so, and ends in order when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final, Protocol, TextIO

import uvicorn
from starlette.types import ASGIApp

_KEPT_S: Final = 10
"""An idle connection is kept longer than clients keep it (httpx, and so openai: five seconds), or a
request could meet one that is closing."""
_CLOSING_S = 5
"""For connections to take what was sent, once everything has ended."""
_BACKLOG = 128


class Work(Protocol):
    """What goes on behind an application: a scheduler, or replicas that have one each."""

    @property
    def error(self) -> Exception | None:
        """What broke it."""
        ...

    def start(self, on_broken: Callable[[], object]) -> None:
        """Begin; `on_broken` is called when `error` is set."""
        ...

    def hurry(self) -> None:
        """Cancel what is left, once it is told to end."""
        ...

    def drain(self, seconds: float) -> None:
        """Take nothing new, and wait for what was begun, at most so long."""
        ...


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`, which drains before anything is closed."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """Take an address, before anything that takes time.

    Args:
        host: Address, or a name of this machine.
        port: 0 takes a free one.

    Raises:
        OSError: It cannot be had; names it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from None


def serve(
    app: ASGIApp,
    work: Work,
    listener: socket.socket,
    *,
    drain_s: float,
    max_connections: int,
    held_by: TextIO | None = None,
) -> int | None:
    """Serve until a signal says to end, or the work breaks.

    At the first SIGTERM or SIGINT new trajectories are refused; those that are there come to their
    end, and their readers get it; everything else is answered meanwhile. At the second, or after
    `drain_s`, what is left is cancelled.

    Args:
        app: What is served.
        work: Started, and stopped in the end.
        listener: Where.
        drain_s: For what was begun.
        max_connections: At a time.
        held_by: Its end is as two signals. A pipe ends with the process at its other end, however
            that one ended, and a server that nobody can reach any more only holds its device and
            its folder.

    Returns:
        The signal that ended it; None where none did.

    Raises:
        Exception: What broke the work.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        limit_concurrency=max_connections,
        timeout_keep_alive=_KEPT_S,
        timeout_graceful_shutdown=_CLOSING_S,
    )
    with asyncio.Runner() as runner:
        got = runner.run(_serve(_Uvicorn(config), work, listener, drain_s, held_by))
    if work.error is not None:
        raise work.error
    return got


async def _serve(
    server: _Uvicorn,
    work: Work,
    listener: socket.socket,
    drain_s: float,
    held_by: TextIO | None,
) -> int | None:
    loop, end = asyncio.get_running_loop(), asyncio.Event()
    signals: list[int] = []

    def on_signal(number: int) -> None:
        if signals:
            work.hurry()
        signals.append(number)
        end.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    if held_by is not None:
        threading.Thread(target=_wait_for_end, args=(held_by, loop, on_signal), daemon=True).start()
    work.start(on_broken=lambda: loop.call_soon_threadsafe(end.set))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    ending = asyncio.create_task(end.wait())
    try:
        await asyncio.wait((serving, ending), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(work.drain, drain_s)
    finally:
        server.should_exit = True
        ending.cancel()
        await serving
    return signals[0] if signals else None


def _wait_for_end(
    stream: TextIO, loop: asyncio.AbstractEventLoop, on_signal: Callable[[int], None]
) -> None:
    while os.read(stream.fileno(), 4096):
        pass
    with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended by itself
        for _ in range(2):
            loop.call_soon_threadsafe(on_signal, signal.SIGTERM)
