"""A data job against a server that misbehaves in every way, in a process of its own; and its
measurements at tiny size."""

import asyncio
import gc
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks import data_jobs
from benchmarks.parts.nasty_server import FAULTS, NastyServer
from staged.backends.http.limiter import Limiter
from staged.backends.http.pools import _NUM_POOLS, KEPT_S, Pools
from staged.jobs.ledger import Ledger


@pytest.mark.parametrize("units", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_every_input_ends_with_a_reason_and_nothing_is_bought_twice(
    units: int, tmp_path: Path
) -> None:
    found = data_jobs.soak(tmp_path, units, timeout_s=3.0, stubborn=0.01)
    assert found["ok"], found
    assert found["ended"] == units and not found["without_reason"]
    assert found["requests_by_our_count"] >= found["requests_by_its_count"] > units
    assert not found["bought_twice"]
    assert set(FAULTS) <= set(found["behaviour"]), "it tried everything"
    ends = found["ends"]
    assert set(ends) <= {"accepted", "failed refusal", "failed invalid_output"}, ends
    assert ends["accepted"] > 0.9 * units and ends["failed refusal"] > 0
    assert ends["failed invalid_output"] > 0, "who never fits is given up"


def test_a_server_that_was_asked_twice_is_found_out() -> None:
    server = NastyServer()
    server.by_request = {"a": ["hang", "plain"], "b": ["wrong_json", "refusal", "plain"]}
    assert server.bought_twice == {"b": ["wrong_json", "refusal", "plain"]}
    assert data_jobs.answered_late(["timeout", "ok"], ["plain", "plain"]) == 1
    assert data_jobs.answered_late(["timeout", "ok"], ["hang", "plain"]) == 0
    assert data_jobs.answered_late(["invalid_output", "ok"], ["refusal", "plain"]) == 0


def test_a_finished_ledger_is_known_again(tmp_path: Path) -> None:
    found = data_jobs.resume(tmp_path / "ledger", 300)
    assert found["left"] == 0 and found["ends"] == 100
    assert gc.isenabled(), "it rests while the ledger is read, and no longer"
    with Ledger(tmp_path / "ledger", fingerprint="f") as ledger:
        assert gc.isenabled()
        assert ledger.left(range(101)) == {100}
        assert ledger.spent.requests == 100
        assert ledger.spent.usd == pytest.approx(0.1)


def test_throughput_is_measured_and_a_broken_promise_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(data_jobs.PROMISES, "throughput", 2.0)
    out = tmp_path / "out.json"
    sizes = ["--soak", "0", "--records", "0", "--requests", "8", "--out", str(out)]
    assert data_jobs.main(sizes) == 1, "nothing is faster than the server"
    found = json.loads(out.read_text())["throughput"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"throughput": found}
    assert found["took_s"] >= found["ideal_s"] and not found["ok"]


def test_a_place_that_is_given_up_is_the_next_ones() -> None:
    """A disk that takes its time must not keep a service idle."""

    async def go() -> list[str]:
        limiter, said = Limiter(concurrency=1), []
        answered, kept = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            async with limiter.slot(0) as place:
                place.release()
                answered.set()
                await kept.wait()
                said.append("first is kept")

        async def second() -> None:
            await answered.wait()
            async with limiter.slot(0):
                said.append("second is asked")
            kept.set()

        await asyncio.wait_for(asyncio.gather(first(), second()), 30)
        # Given up once, a place is not given up again at the end.
        async with limiter.slot(0):
            third = asyncio.ensure_future(limiter.slot(0).__aenter__())
            await asyncio.sleep(0)
            assert not third.done()
            third.cancel()
        return said

    assert asyncio.run(go()) == ["second is asked", "first is kept"]


def test_requests_go_to_one_pool_after_the_other_and_all_are_closed() -> None:
    class Pool(httpx.AsyncBaseTransport):
        def __init__(self) -> None:
            self.asked: list[str] = []
            self.closed = False

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.asked.append(request.url.path)
            return httpx.Response(200)

        async def aclose(self) -> None:
            self.closed = True

    async def go(pools: Sequence[Any]) -> None:
        async with httpx.AsyncClient(transport=Pools(pools)) as client:
            for number in range(5):
                await client.get(f"http://x.invalid/{number}")

    pools = [Pool(), Pool()]
    asyncio.run(go(pools))
    assert [pool.asked for pool in pools] == [["/0", "/2", "/4"], ["/1", "/3"]]
    assert all(pool.closed for pool in pools)


def test_an_idle_connection_is_closed_before_a_server_would_close_it() -> None:
    """Which a request might meet halfway: an attempt in vain, paid for or not."""
    opened = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async def go() -> list[int]:
        counts = []
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(transport=Pools.to_the_network()) as client:
            for pause_s in (0.0, 0.0, KEPT_S + 0.1):
                await asyncio.sleep(pause_s)
                for _ in range(_NUM_POOLS):
                    await client.get(url)
                counts.append(opened)
        server.close()
        return counts

    assert asyncio.run(go()) == [_NUM_POOLS, _NUM_POOLS, 2 * _NUM_POOLS]
    assert KEPT_S < 5, "seconds that uvicorn waits"
