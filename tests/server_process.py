"""A real `staged serve`, in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
START_S = 300
"""Importing torch takes its time where others use the machine too."""
PROMPT = "a photo of a red circle above a blue star"
SMALL = ["num_flow_steps=2", "max_rounds=1", "max_refinements=1", "device=cpu", "dtype=float32"]
ANN, BOB = "ann-has-a-long-key-0001", "bob-has-a-long-key-0002"


@dataclass
class ServerProcess:
    """A process that serves."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def client(self, key: str | None = None, **more: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, **more)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(120)


@contextmanager
def serving(out: Path, *settings: str, keys: str = "") -> Iterator[ServerProcess]:
    """Serve the miniature from a folder until the block ends."""
    log = out.with_suffix(".log")
    env = {**os.environ, "STAGED_API_KEYS": keys, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "staged", "serve", "port=0", f"out={out}", *SMALL, *settings]
    with log.open("a") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env=env
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, f"{line}{process.stdout.read()}{log.read_text()}"
        server = ServerProcess(process, found.group(), log)
        began = time.monotonic()
        while httpx.get(f"{server.url}/ready", timeout=30).status_code != 200:
            assert time.monotonic() - began < START_S and process.poll() is None
            time.sleep(0.1)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdout.close()  # type: ignore[union-attr]


@dataclass(frozen=True)
class Told:
    """One server-sent event."""

    id: int | None
    name: str
    data: dict[str, Any]


def told(response: httpx.Response) -> Iterator[Told]:
    """Read the events of a stream, by the rules of the standard."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            if "data" in fields:
                number = int(fields["id"]) if "id" in fields else None
                yield Told(number, fields["event"], json.loads(fields["data"]))
            fields = {}
