"""A server under clients of every kind, for minutes: what they are told, and what is left behind.

    python benchmarks/soak.py --minutes 10 --clients 200

Starts `staged serve` with the shipped miniature and lets clients draw to the end, hang up, cancel,
read slowly, take up streams again, fork, ask as OpenAI's clients do, and send what is no request.
Then it looks for what should not be there: tokens of cache, open streams, files of nothing, memory
that grew, statuses that are wrong; and ends the server while trajectories run. Prints one JSON
line. Exit code 0, or 1 where something was left or wrong.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
PATH = "/v1/trajectories"
KEY = "a-key-for-the-soak-0001"
DEADLINE_S = 60.0
COLORS = ("red", "green", "blue", "yellow", "white", "black")
SHAPES = ("star", "ring", "heart", "cross", "drop", "circle")
MAX_GROWTH_MIB = 150
"""Of the server's memory after the first minute; allocators keep some of what they had."""


class Soak:
    """Clients against one server, and what they saw.

    Attributes:
        statuses: (kind of request, status) to how often.
        seconds: Kind of request to how long each that was answered took.
        wrong: What should not have happened.
    """

    def __init__(self, url: str, seed: int) -> None:
        """See nothing yet."""
        self._url, self._random = url, random.Random(seed)
        self.statuses = Counter[str]()
        self.seconds: dict[str, list[float]] = {}
        self.wrong = Counter[str]()
        self._ids: list[str] = []

    async def client(self, until: float) -> None:
        """Be one client after another until the time is over."""
        kinds: list[tuple[int, Callable[[httpx.AsyncClient], Awaitable[None]]]] = [
            (6, self.watch), (3, self.hang_up), (3, self.cancel), (2, self.take_up_again),
            (1, self.read_slowly), (2, self.fork), (2, self.openai), (1, self.malformed),
            (1, self.oversized), (1, self.wrong_key), (1, self.unknown_words),
        ]  # fmt: skip
        weights, acts = zip(*kinds, strict=True)
        while time.monotonic() < until:
            [act] = self._random.choices(acts, weights)
            limits = httpx.Limits(max_connections=1)
            headers = {"Authorization": f"Bearer {KEY}"}
            async with httpx.AsyncClient(
                base_url=self._url, headers=headers, timeout=DEADLINE_S + 30, limits=limits
            ) as http:
                try:
                    await act(http)
                except httpx.HTTPError as error:
                    self.wrong[f"{act.__name__}: {type(error).__name__}"] += 1
            await asyncio.sleep(self._random.expovariate(2))

    def body(self, **more: Any) -> dict[str, Any]:
        """Make a request up."""
        draw = self._random
        prompt = f"a photo of a {draw.choice(COLORS)} {draw.choice(SHAPES)}"
        mode = draw.choice(("one-shot", "staged"))
        return {"prompt": prompt, "mode": mode, "deadline_s": DEADLINE_S, **more}

    def note(self, kind: str, status: int, began: float, *expected: int) -> bool:
        """Count an answer; whether it was a success."""
        self.statuses[f"{kind} {status}"] += 1
        if status not in (*expected, 429, 503):
            self.wrong[f"{kind}: {status}"] += 1
        if status < 300:
            self.seconds.setdefault(kind, []).append(time.monotonic() - began)
        return status < 300

    async def watch(self, http: httpx.AsyncClient, pause_s: float = 0.0) -> None:
        """Read a trajectory to its end."""
        began = time.monotonic()
        async with http.stream("POST", PATH, json=self.body()) as response:
            names = [n async for n in self._names(response, pause_s)]
        if self.note("watch", response.status_code, began, 200):
            if names[-1:] not in (["stop"], ["failed"]):
                self.wrong["watch: no end"] += 1
            self._ids.append(response.headers["x-trajectory-id"])
            del self._ids[:-200]

    async def read_slowly(self, http: httpx.AsyncClient) -> None:
        """Read it with pauses."""
        await self.watch(http, pause_s=0.3)

    async def hang_up(self, http: httpx.AsyncClient) -> None:
        """Leave in the middle."""
        began, leave_after = time.monotonic(), self._random.randint(0, 6)
        async with http.stream("POST", PATH, json=self.body(mode="staged")) as response:
            number = 0
            async for _ in self._names(response):
                number += 1
                if number > leave_after:
                    break
        self.note("hang up", response.status_code, began, 200)

    async def cancel(self, http: httpx.AsyncClient) -> None:
        """Begin and cancel."""
        began = time.monotonic()
        got = await http.post(PATH, json=self.body(stream=False, mode="staged"))
        if not self.note("begin", got.status_code, began, 202):
            return
        await asyncio.sleep(self._random.random())
        began = time.monotonic()
        done = await http.post(f"{PATH}/{got.json()['id']}/cancel")
        self.note("cancel", done.status_code, began, 200)

    async def take_up_again(self, http: httpx.AsyncClient) -> None:
        """Lose the connection and miss nothing."""
        began, last, numbers = time.monotonic(), 0, list[int]()
        async with http.stream("POST", PATH, json=self.body(mode="staged")) as response:
            async for line in response.aiter_lines():
                if line.startswith("id: "):
                    numbers.append(last := int(line[4:]))
                    if last == 2:
                        break
        if not self.note("take up", response.status_code, began, 200):
            return
        id = response.headers["x-trajectory-id"]
        headers = {"Last-Event-ID": str(last)}
        async with http.stream("GET", f"{PATH}/{id}/events", headers=headers) as response:
            async for line in response.aiter_lines():
                if line.startswith("id: "):
                    numbers.append(int(line[4:]))
        if numbers != list(range(1, len(numbers) + 1)):
            self.wrong["take up: events missing"] += 1

    async def fork(self, http: httpx.AsyncClient) -> None:
        """Go on from somebody's first step."""
        if not self._ids:
            return
        began, id = time.monotonic(), self._random.choice(self._ids)
        body = {"at": 1, "seed": self._random.randrange(2**31), "stream": False}
        got = await http.post(f"{PATH}/{id}/fork", json=body)
        self.note("fork", got.status_code, began, 202, 400)  # 400: it had no step

    async def openai(self, http: httpx.AsyncClient) -> None:
        """Draw as OpenAI's clients do."""
        began = time.monotonic()
        body = self.body(mode="one-shot", n=self._random.randint(1, 2))
        got = await http.post("/v1/images/generations", json=body)
        self.note("image", got.status_code, began, 200, 504)

    async def malformed(self, http: httpx.AsyncClient) -> None:
        """Send what is no request."""
        began, length = time.monotonic(), self._random.randint(0, 3000)
        headers = {"Content-Type": "application/json"}
        got = await http.post(PATH, content=self._random.randbytes(length), headers=headers)
        self.note("malformed", got.status_code, began, 400)

    async def oversized(self, http: httpx.AsyncClient) -> None:
        """Send far too much."""
        began = time.monotonic()
        got = await http.post(PATH, json=self.body(prompt="star " * 1000))
        self.note("oversized", got.status_code, began, 400)

    async def wrong_key(self, http: httpx.AsyncClient) -> None:
        """Ask as nobody."""
        began, headers = time.monotonic(), {"Authorization": "Bearer nobody-has-this-key"}
        got = await http.post(PATH, json=self.body(), headers=headers)
        self.note("wrong key", got.status_code, began, 401)

    async def unknown_words(self, http: httpx.AsyncClient) -> None:
        """Ask for what the miniature does not know."""
        began = time.monotonic()
        got = await http.post(PATH, json=self.body(prompt="a photo of a dog"))
        self.note("unknown words", got.status_code, began, 400)

    async def _names(self, response: httpx.Response, pause_s: float = 0.0) -> Any:
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                yield line[7:]
                if pause_s:
                    await asyncio.sleep(pause_s)


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found
    return int(found[1]) / 1024


def gauges(url: str) -> dict[str, float]:
    """What the server says that it holds."""
    got = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
    lines = (line.rsplit(" ", 1) for line in got.text.splitlines() if line[0] != "#")
    return {name: float(value) for name, value in lines if "{" not in name}


def leftovers(url: str, home: Path, pid: int) -> dict[str, float]:
    """Wait until nothing runs any more, and say what is still held."""
    for _ in range(600):
        held = gauges(url)
        if held["staged_running"] == held["staged_queued"] == 0:
            break
        time.sleep(0.2)
    time.sleep(1)
    held = gauges(url)
    names = ("staged_running", "staged_queued", "staged_readers", "staged_cached_tokens")
    left = {name.removeprefix("staged_"): held[name] for name in names}
    left["halves"] = len(list((home / "pictures").rglob("*.tmp")))
    left["sockets"] = sum(
        "socket" in os.readlink(path) for path in list(Path(f"/proc/{pid}/fd").iterdir())
    )
    left["threads"] = len(list(Path(f"/proc/{pid}/task").iterdir()))
    return left


def end(url: str, process: "subprocess.Popen[str]") -> dict[str, Any]:
    """End the server while trajectories run; whether they came to their end."""
    headers, body = {"Authorization": f"Bearer {KEY}"}, {"prompt": "a photo of a red star"}
    events: list[str] = []
    with httpx.stream("POST", f"{url}{PATH}", json=body, headers=headers, timeout=120) as response:
        for line in response.iter_lines():
            if line.startswith("event: "):
                events.append(line[7:])
                if len(events) == 1:
                    process.send_signal(signal.SIGTERM)
    return {"status": process.wait(120), "last_event": events[-1]}


def start(home: Path, minutes: float) -> tuple["subprocess.Popen[str]", str]:
    """Start the server; returns it and its address once it is ready."""
    settings = [
        "port=0", f"out={home}", "num_flow_steps=4", "max_rounds=2", "max_refinements=1",
        "limits.max_per_client=100000", "limits.max_connections=2000", "drain_s=60",
        "limits.reconnect_s=1", f"limits.deadline_s={DEADLINE_S}", "device=cpu", "dtype=float32",
    ]  # fmt: skip
    with (home.parent / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "staged", "serve", *settings],
            stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT,
            env={**os.environ, "STAGED_API_KEYS": f"soak:{KEY}"},
        )  # fmt: skip
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found, "the server did not start"
    url = found.group()
    while httpx.get(f"{url}/ready", timeout=60).status_code != 200:
        time.sleep(0.2)
    return process, url


def percentile(values: list[float], share: float) -> float:
    """The value below which a share of them lies."""
    ordered = sorted(values)
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3)


async def soak(url: str, pid: int, clients: int, seconds: float, seed: int) -> tuple[Soak, float]:
    """Let clients loose; returns what they saw, and the server's memory once it is warm."""
    seen, began = Soak(url, seed), time.monotonic()
    tasks = [asyncio.create_task(seen.client(began + seconds)) for _ in range(clients)]
    await asyncio.sleep(min(60.0, seconds / 2))
    warm = memory_mib(pid)
    await asyncio.gather(*tasks)
    return seen, warm


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the server's history and log")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        home = folder / "home"
        process, url = start(home, options.minutes)
        try:
            idle = leftovers(url, home, process.pid)
            seen, warm = asyncio.run(
                soak(url, process.pid, options.clients, options.minutes * 60, options.seed)
            )
            left = leftovers(url, home, process.pid)
            grown = memory_mib(process.pid) - warm
            counted = gauges(url)
            ended = end(url, process)
        finally:
            if process.poll() is None:
                process.kill()
    bad = dict(seen.wrong)
    for name in ("running", "queued", "readers", "cached_tokens", "halves"):
        if left[name]:
            bad[f"left: {name}"] = int(left[name])
    if left["sockets"] > idle["sockets"] + 5:
        bad["left: sockets"] = int(left["sockets"] - idle["sockets"])
    if grown > MAX_GROWTH_MIB:
        bad["memory grew"] = round(grown)
    if ended != {"status": 0, "last_event": "stop"} and ended["last_event"] != "failed":
        bad["did not end in order"] = 1
    figures = {
        "minutes": options.minutes,
        "clients": options.clients,
        "requests": sum(seen.statuses.values()),
        "statuses": dict(sorted(seen.statuses.items())),
        "p50_s": {kind: percentile(values, 0.5) for kind, values in seen.seconds.items()},
        "p99_s": {kind: percentile(values, 0.99) for kind, values in seen.seconds.items()},
        "flow_steps": counted["staged_flow_steps_total"],
        "idle": idle,
        "left": left,
        "memory_grew_mib": round(grown, 1),
        "ended": ended,
        "wrong": bad,
    }
    print(json.dumps(figures))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
