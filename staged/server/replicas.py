"""Several servers of the same model, each a process, kept going by one that draws nothing."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from staged import settings as job_settings
from staged.server.settings import ServeSettings

_ADDRESS: Final = re.compile(r" on (http://\S+:\d+) ")
"""In what `staged serve` prints first."""
_CLOSING_S: Final = 30.0
"""For a process to end, beside what it may take for what was begun."""
_MAX_PAUSE_S: Final = 30.0
_DEVICES: Final = "CUDA_VISIBLE_DEVICES"

_log = logging.getLogger(__name__)


class Replicas:
    """Starts servers on ports of their own, and again where one ends unasked.

    They listen on 127.0.0.1 alone, with the environment's API keys, and end when this process does.
    Where `CUDA_VISIBLE_DEVICES` names several devices each gets one of them, in turn.

    Attributes:
        error: Why they are given up: one of them did not start at all.
    """

    def __init__(self, settings: ServeSettings) -> None:
        """Start nothing yet.

        Args:
            settings: Of the whole; `replicas` of them are kept.
        """
        self._settings = settings
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._addresses: list[str | None] = [None] * settings.replicas
        self._processes: list[subprocess.Popen[str] | None] = [None] * settings.replicas
        self._keepers: list[threading.Thread] = []
        self._on_broken: Callable[[], object] = lambda: None
        self.error: Exception | None = None

    def addresses(self) -> Sequence[str | None]:
        """Where each is; None of one that is being started."""
        return list(self._addresses)

    def start(self, on_broken: Callable[[], object]) -> None:
        """Start all.

        Args:
            on_broken: Called once `error` is set.
        """
        self._on_broken = on_broken
        for number in range(self._settings.replicas):
            keeper = threading.Thread(target=self._keep, args=(number,), daemon=True)
            self._keepers.append(keeper)
            keeper.start()

    def hurry(self) -> None:
        """Let them cancel what they have, once they are told to end."""
        self._signal(signal.SIGTERM)

    def drain(self, seconds: float) -> None:
        """Tell them to end, and wait: for `seconds` they bring to its end what was begun."""
        with self._lock:
            self._ending.set()
        self._signal(signal.SIGTERM)
        until = time.monotonic() + seconds + _CLOSING_S
        for keeper in self._keepers:
            keeper.join(max(until - time.monotonic(), 0))
        self._signal(signal.SIGKILL)
        for keeper in self._keepers:
            keeper.join()

    # --- one of them -------------------------------------------------------------------------

    def _keep(self, number: int) -> None:
        pause_s = 1.0
        while (process := self._begin(number)) is not None:
            began = time.monotonic()
            assert process.stdout is not None
            for line in process.stdout:
                if self._addresses[number] is None and (found := _ADDRESS.search(line)):
                    self._addresses[number] = found.group(1)
            assert process.stdin is not None
            process.stdin.close()
            code, served = process.wait(), self._addresses[number] is not None
            self._addresses[number] = None
            if self._ending.is_set():
                return
            _log.error("replica", extra={"facts": {"replica": number, "ended": code}})
            if not served:
                self.error = ValueError(
                    f"replica {number} ended with status {code} before it listened; what it said "
                    "stands above"
                )
                self._on_broken()
                return
            # One that ends again and again is not started all the time.
            pause_s = 1.0 if time.monotonic() - began > 60 else min(2 * pause_s, _MAX_PAUSE_S)
            self._ending.wait(pause_s)

    def _begin(self, number: int) -> subprocess.Popen[str] | None:
        """Start one; None once all are to end."""
        home = self._settings.out / f"replica-{number}"
        home.mkdir(parents=True, exist_ok=True)
        own = replace(self._settings, replicas=1, host="127.0.0.1", port=0, out=home)
        path = home / "serve.yaml"
        job_settings.save_resolved(own, path)
        command = [sys.executable, "-m", "staged", "serve", "--until-eof", "--config", str(path)]
        with self._lock:
            if self._ending.is_set():
                return None
            # In a session of its own: Ctrl-C in a terminal reaches it once, by this process. It
            # reads a pipe that ends when this process does, killed or not.
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=_environment(os.environ, number),
                start_new_session=True,
            )
            self._processes[number] = process
        return process

    def _signal(self, which: signal.Signals) -> None:
        for process in self._processes:
            if process is not None and process.poll() is None:
                process.send_signal(which)


def _environment(env: Mapping[str, str], number: int) -> dict[str, str]:
    """That of a replica, with a device of its own where there are several."""
    devices = [name for name in env.get(_DEVICES, "").split(",") if name]
    return {**env, **({_DEVICES: devices[number % len(devices)]} if devices else {})}
