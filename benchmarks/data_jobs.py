"""What a data job adds to what its services take: faults outlasted, throughput, CPU, resumes.

    python benchmarks/data_jobs.py --out benchmarks/results/data-jobs.json

Needs no network: the service is a server on this machine, in a process of its own. Each section
prints one JSON line. Exit code 0, or 1 where a promise is not kept; PROMISES says which.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # from a bare checkout
import httpx
import openai
import torch
from pydantic import BaseModel, ConfigDict

from benchmarks.parts.nasty_server import GIVEN_UP, NastyServer
from data_pipelines.asking import Asking, UnitEndError
from data_pipelines.runner import run
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.ledger import LedgerLog
from staged.backends.lmm.request import LmmRequest
from staged.backends.lmm.request_key import request_key
from staged.backends.lmm.settings import LmmSettings
from staged.device_memory import peak_gib
from staged.jobs.journal import Journal
from staged.jobs.ledger import Ledger
from staged.jobs.record_rows import FORMAT
from staged.jobs.records import WRITERS
from staged.jobs.results import UnitResult
from staged.jobs.runner import in_turn

CONCURRENCY: Final = 64
PROMISES: Final = {"throughput": 0.95, "cpu_ms": 3.0, "resume_s": 10.0, "resume_gib": 1.0}
"""Least share of the ideal throughput; most CPU for a sample of one request beyond what the client
library takes to send it and to read its reply, in milliseconds; most time until a finished ledger
of a million records is known, and most memory."""


class Echo(BaseModel):
    """What the server is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    echo: str


@contextmanager
def served(**manners: float) -> Iterator[str]:
    """Run the server in a process of its own; yields its address."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs, manners), daemon=True
    )
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(told: Connection, manners: dict[str, float]) -> None:
    async def forever() -> None:
        server = await NastyServer(**manners).serve()
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(forever())


def counted(address: str) -> dict[str, Any]:
    """What the server counted."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{address}/counts") as reply:
        counts: dict[str, Any] = json.loads(reply.read())
    return counts


async def work_through(
    address: str, folder: Path, units: Sequence[int], *, timeout_s: float, concurrency: int
) -> dict[str, list[str]]:
    """Ask once for every unit, through client, limiter, ledger and runner as a data job does.

    Returns:
        Text of each request -> what came of its attempts.
    """
    outcomes: dict[str, list[str]] = {}
    settings = LmmSettings(
        model="nasty-1",
        base_url=f"{address}/v1",
        api_key_env=None,
        temperature=0.0,
        structured_output="json_schema",
        timeout_s=timeout_s,
        backoff_s=0.01,
        max_backoff_s=0.2,
        concurrency=concurrency,
        usd_per_million_input_tokens=1.0,
    )
    with Ledger(folder, fingerprint="f") as ledger:
        async with LmmClient(settings, log=LedgerLog(ledger)) as client:

            async def work(unit: int) -> UnitResult:
                request = LmmRequest(
                    purpose="echo",
                    prompt_version="1",
                    instructions="Say it again.",
                    content=(f"unit {unit}",),
                    answer=Echo,
                )
                try:
                    value = await Asking(client).ask(request)
                except UnitEndError as end:
                    return end.result
                finally:
                    made = client.log.attempts(request_key(client.settings, request))
                    outcomes[f"unit {unit}"] = [attempt.outcome for attempt in made]
                assert value.echo == f"unit {unit}", "another request's answer"
                return UnitResult(status="accepted", sample={"echo": value.echo})

            # Some units wait for the disk while others' requests are with the server.
            await run(units, work, ledger, concurrency=2 * concurrency, label="units")
    return outcomes


def answered_late(outcomes: Sequence[str], met: Sequence[str]) -> int:
    """How often we gave up waiting for a reply that the server did not hold back.

    On a busy machine a good reply may come after the timeout. Nobody can tell it from one that
    never comes, so it is asked for again.
    """
    gave_up = sum(outcome in ("timeout", "connection") for outcome in outcomes)
    return gave_up - sum(behaviour in GIVEN_UP for behaviour in met)


def soak(
    folder: Path, number: int, *, timeout_s: float = 10.0, stubborn: float = 0.002
) -> dict[str, Any]:
    """Let a server misbehave in a fifth of its replies; everything must end, paid for once."""
    with served(faults=0.2, stubborn=stubborn, latency_s=0.05, hang_s=4 * timeout_s) as address:
        began = time.monotonic()
        outcomes = asyncio.run(
            work_through(
                address, folder, range(number), timeout_s=timeout_s, concurrency=CONCURRENCY
            )
        )
        took_s = time.monotonic() - began
        server = counted(address)
    with Ledger(folder, fingerprint="f") as ledger:
        spent = ledger.spent
        ends = [result for _, result in ledger.results()]
    twice = {
        text: met
        for text, met in server["bought_twice"].items()
        if answered_late(outcomes[text], met) < 1
    }
    gave_up = sum(o in ("timeout", "connection") for each in outcomes.values() for o in each)
    late = gave_up - sum(server["by_behaviour"].get(name, 0) for name in GIVEN_UP)
    reasons = Counter(f"{end.status} {end.reason}".strip() for end in ends)
    return {
        "units": number,
        "ended": len(ends),
        "without_reason": sum(end.status != "accepted" and not end.reason for end in ends),
        "ends": dict(sorted(reasons.items())),
        "requests_by_our_count": spent.requests,
        "requests_by_its_count": server["requests"],
        "usd_by_our_count": round(spent.usd, 9),
        "replies_later_than_the_timeout": late,
        "asked_again_for_that": len(server["bought_twice"]) - len(twice),
        "bought_twice": twice,
        "most_at_once": server["most_at_once"],
        "behaviour": server["by_behaviour"],
        "took_s": round(took_s, 1),
        "ok": (
            len(ends) == number
            # One that timed out before the server had read it was counted by us alone.
            and 0 <= spent.requests - server["requests"] <= late
            and not twice
            and server["most_at_once"] <= CONCURRENCY + gave_up
        ),
    }


async def ask_alone(address: str, units: Sequence[int]) -> None:
    """Send the same with the client library alone: no limits, retries, checks or ledger.

    By the cheapest of its calls, which leaves the reply's bytes as they are.
    """
    schema = {"name": "echo", "schema": Echo.model_json_schema(), "strict": True}
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client:

        async def work(unit: int) -> None:
            await client.post(
                "/chat/completions",
                cast_to=httpx.Response,
                body={
                    "model": "nasty-1",
                    "messages": [
                        {"role": "system", "content": "Say it again."},
                        {"role": "user", "content": [{"type": "text", "text": f"unit {unit}"}]},
                    ],
                    "temperature": 0.0,
                    "response_format": {"type": "json_schema", "json_schema": schema},
                },
            )

        await in_turn(units, work, workers=CONCURRENCY)


def throughput(folder: Path, number: int, *, latency_s: float = 1.0) -> dict[str, Any]:
    """Ask a server of fixed latency, and compare with the least time that it takes by itself.

    The processor time of the client library alone is measured too, and only what a job adds to it
    is ours.
    """
    warm = CONCURRENCY
    with served(faults=0.0, latency_s=latency_s) as address:

        def timed(part: str, units: range) -> tuple[float, float]:
            began, cpu = time.monotonic(), time.process_time()
            asyncio.run(
                work_through(address, folder / part, units, timeout_s=60.0, concurrency=CONCURRENCY)
            )
            return time.monotonic() - began, time.process_time() - cpu

        timed("warm", range(warm))  # imports
        took_s, cpu_s = timed("measured", range(number))
        asyncio.run(ask_alone(address, range(warm)))
        cpu = time.process_time()
        asyncio.run(ask_alone(address, range(number)))
        alone_s = time.process_time() - cpu
    ideal_s = -(-number // CONCURRENCY) * latency_s
    ratio, own_ms = ideal_s / took_s, 1e3 * (cpu_s - alone_s) / number
    return {
        "requests": number,
        "concurrency": CONCURRENCY,
        "latency_s": latency_s,
        "took_s": round(took_s, 2),
        "ideal_s": round(ideal_s, 2),
        "share_of_ideal": round(ratio, 4),
        "cpu_ms_per_sample": round(1e3 * cpu_s / number, 3),
        "cpu_ms_of_the_client_alone": round(1e3 * alone_s / number, 3),
        "own_cpu_ms_per_sample": round(own_ms, 3),
        "ok": ratio >= PROMISES["throughput"] and own_ms < PROMISES["cpu_ms"],
    }


def resume(folder: Path, records: int) -> dict[str, Any]:
    """Open a finished ledger of so many records, three an end, in a process of its own.

    Twice: as a job leaves it, and before that without the index that a job writes as it goes on.
    """
    number = records // 3
    write_ledger(folder, number)
    without = _opened(folder, number)  # it writes the index
    left, took_s, cpu_s, gib = _opened(folder, number)
    return {
        "records": 3 * number,
        "ends": number,
        "journal_mib": round((folder / "00000.jsonl").stat().st_size / 2**20),
        "left": left,
        "took_s": round(took_s, 2),
        "cpu_s": round(cpu_s, 2),
        "gib": None if gib is None else round(gib, 3),
        "cpu_s_without_index": round(without[2], 2),
        "gib_without_index": None if without[3] is None else round(without[3], 3),
        "ok": left == 0
        and took_s < PROMISES["resume_s"]
        and (gib is None or gib < PROMISES["resume_gib"]),
    }


def _opened(folder: Path, number: int) -> tuple[int, float, float, float | None]:
    """Open a ledger in a process of its own: units left, seconds, CPU seconds, most memory."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_open, args=(theirs, folder, number)
    )
    process.start()
    found: tuple[int, float, float, float | None] = ours.recv()
    process.join()
    return found


def write_ledger(folder: Path, number: int) -> None:
    """Write what a job records that has ended so many units with one request each; no index."""
    folder.mkdir(parents=True)
    (folder / WRITERS).write_text("00000\n")
    with Journal(folder / "00000.jsonl") as journal:
        begin = {"kind": "begin", "format": FORMAT, "fingerprint": "f", "round": 1}
        journal.append(begin)
        for unit in range(number):
            journal.append({"kind": "call", "of": "requests", "usd": 0.0})
            answer = {
                "kind": "answer",
                "of": "requests",
                "key": f"{unit:064x}",
                "purpose": "echo",
                "number": 0,
                "round": 1,
                "paid": True,
                "reserved": 0.0,
                "usd": 0.001,
                "data": {
                    "outcome": "ok",
                    "text": "a red parasol on a beach " * 8,
                    "input_tokens": 100,
                    "output_tokens": 10,
                    "usd": 0.001,
                },
            }
            journal.append(answer)
            result = {
                "kind": "result",
                "round": 1,
                "unit": unit,
                "status": "accepted",
                "stage": "",
                "reason": "",
                "sample": {"prompt": "a beach in the style of Van Gogh", "steps": []},
            }
            journal.append(result)


def _open(told: Connection, folder: Path, number: int) -> None:
    began, cpu = time.monotonic(), time.process_time()
    with Ledger(folder, fingerprint="f") as ledger:
        left = ledger.left(range(number))
        took_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
    told.send((len(left), took_s, cpu_s, peak_gib(torch.device("cpu"))))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and say whether every promise is kept."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--soak", type=int, default=10_000, help="units of the soak; 0 for none")
    parser.add_argument("--requests", type=int, default=3_840, help="of the throughput; 0 for none")
    parser.add_argument("--records", type=int, default=1_000_000, help="of the ledger; 0 for none")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(argv)
    found: dict[str, Any] = {
        "environment": {
            "date": time.strftime("%Y-%m-%d"),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "load_before": [round(load, 1) for load in os.getloadavg()],
        }
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for section, measure, number in (
            ("throughput", throughput, options.requests),
            ("resume", resume, options.records),
            ("soak", soak, options.soak),
        ):
            if number:
                found[section] = measure(folder / section, number)
                print(json.dumps({section: found[section]}), flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(part.get("ok", True) for part in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
