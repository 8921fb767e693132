"""What a data job holds of its budget for requests of a language model, and what becomes of it.

In the end nothing is held, and what was spent is what the server has charged.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel
from ranks import Command
from serving import serve
from starlette.applications import Starlette

from data_pipelines.__main__ import main
from data_pipelines.job import LEDGER
from staged.backends.lmm.kept import kept_answers
from staged.backends.lmm.request import LmmRequest
from staged.backends.lmm.settings import BatchSettings
from staged.jobs.journal import Journal
from staged.jobs.records import Records
from staged.shapes.players.lmm import client_of, create_app, local_settings
from staged.shapes.players.misbehaviour import SHAPES_LMM, Misbehaviour
from staged.shapes.tasks import sample_prompt
from staged.shards import validate

PROMPTS = 2
USD_PER_TOKEN = 1e-4
AT_ONCE = "lmm.batch=null"
BATCHED = "lmm.batch={gather_s: 0.05, poll_s: 0.01}"


class Till:
    """A server that writes down what it charges: half of the price in a batch."""

    def __init__(self, app: Starlette) -> None:
        self.usd, self._app = 0.0, app
        desk = app.state.batches
        self.batches: dict[str, dict[str, Any]] = desk._batches
        answer = desk._answer

        def charged(raw: bytes, retry: str) -> tuple[int, dict[str, Any]]:
            status, body = answer(raw, retry)
            self._charge(body, 0.5)
            return status, body

        desk._answer = charged

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        content = bytearray()

        async def sent(message: Any) -> None:
            content.extend(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, sent)
        if scope.get("path") == "/v1/chat/completions":
            self._charge(json.loads(content), 1.0)

    def _charge(self, body: dict[str, Any], price: float) -> None:
        usage = body.get("usage") or {}
        tokens = usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)
        self.usd += price * tokens * USD_PER_TOKEN


@dataclass
class Shop:
    """Where a job asks."""

    till: Till
    url: str

    def job(self, out: Path, *more: str) -> list[str]:
        usd = 1e6 * USD_PER_TOKEN
        lmm = [f"lmm.model={SHAPES_LMM}", f"lmm.base_url={self.url}", "lmm.api_key_env=null"]
        prices = [f"lmm.usd_per_million_{way}_tokens={usd}" for way in ("input", "output")]
        settings = [*lmm, *prices, "lmm.backoff_s=0", f"prompts.count={PROMPTS}", "concurrency=8"]
        prompts = f"prompts.file={out.parent / 'prompts.txt'}"
        return ["plan-sketch", *settings, prompts, "--out", str(out), *more]


@contextmanager
def opened(manners: Misbehaviour | None = None) -> Iterator[Shop]:
    till = Till(create_app(manners))
    with serve(till) as url:
        yield Shop(till, url)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    texts = [sample_prompt("two_object", rng, "train").text for _ in range(PROMPTS)]
    (tmp_path / "prompts.txt").write_text("\n".join(texts) + "\n")
    return tmp_path / "data"


def held(out: Path) -> float:
    """What the budget counts beyond what answers have cost."""
    records = Records(out / LEDGER)
    return records.spent.usd - sum(cost["usd"] for cost in records.costs().values())


def assert_settled(shop: Shop, out: Path) -> None:
    assert held(out) == pytest.approx(0, abs=1e-9)
    assert Records(out / LEDGER).spent.usd == pytest.approx(shop.till.usd)


def ranked(job: list[str], rank: int, ranks: int) -> list[str]:
    return [*job, "--rank", str(rank), "--world-size", str(ranks)]


def gathers(journal: Path) -> bool:
    lines = journal.read_text().splitlines() if journal.exists() else []
    return any('"kind":"call"' in line and '"key":' in line for line in lines)


def killed(shop: Shop, out: Path, moment: str, ranks: int = 1) -> None:
    """Kill every rank of a job while it gathers its first batch, or waits for it."""
    batch = {"gathering": "{gather_s: 90}", "waiting": "{gather_s: 0.2, poll_s: 90}"}[moment]
    started = [
        Command(
            ranked(shop.job(out, f"lmm.batch={batch}"), n, ranks),
            out.with_name(f"killed{n}.log"),
        )
        for n in range(ranks)
    ]
    wait_until = time.monotonic() + 200
    while not (
        all(gathers(out / LEDGER / f"{n:05d}.jsonl") for n in range(ranks))
        if moment == "gathering"
        # One that was looked at once ends when it is looked at again.
        else [one["status"] for one in shop.till.batches.values()] == ["in_progress"] * ranks
    ):
        assert time.monotonic() < wait_until, [command.text for command in started]
        time.sleep(0.01)
    assert all([command.kill() for command in started])


@pytest.mark.parametrize(
    ("moment", "then"),
    [
        ("gathering", BATCHED),
        pytest.param("waiting", AT_ONCE, marks=pytest.mark.slow),
        pytest.param("waiting", BATCHED, marks=pytest.mark.slow),
        pytest.param("gathering", AT_ONCE, marks=pytest.mark.slow),
    ],
)
def test_what_a_kill_left_in_batches_is_neither_held_nor_bought_twice(
    out: Path, moment: str, then: str
) -> None:
    with opened() as shop:
        killed(shop, out, moment)
        assert held(out) > 0
        assert main(shop.job(out, then)) == 0
    assert validate(out).ok
    assert_settled(shop, out)


@pytest.mark.slow
def test_another_price_frees_what_was_held_when_a_batch_was_sent(out: Path) -> None:
    with opened() as shop:
        killed(shop, out, "waiting")
        assert main(shop.job(out, "lmm.batch={gather_s: 0.05, poll_s: 0.01, price: 0.8}")) == 0
    assert held(out) == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_a_batch_in_a_ledger_that_does_not_say_what_it_holds_is_waited_for(out: Path) -> None:
    with opened() as shop:
        killed(shop, out, "waiting")
        path = out / LEDGER / "00000.jsonl"
        records = [json.loads(line.partition(" ")[2]) for line in path.read_text().splitlines()]
        path.unlink()
        with Journal(path) as journal:
            for record in records:
                if record["kind"] in ("call", "sending"):
                    for name in ("key", "number", "price"):
                        record.pop(name, None)
                journal.append(record)
        assert main(shop.job(out, BATCHED)) == 0
    assert_settled(shop, out)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["gathering", "waiting"])
def test_two_processes_settle_what_two_killed_ones_held(out: Path, moment: str) -> None:
    """The journals of the two are read in another order than they were written."""
    with opened() as shop:
        killed(shop, out, moment, ranks=2)
        before = held(out)
        again = [
            Command(ranked(shop.job(out, then), n, 2), out.with_name(f"again{n}.log"))
            for n, then in enumerate((BATCHED, AT_ONCE))
        ]
        assert before > 0 and [one.end() for one in again] == [0, 0]
    assert_settled(shop, out)


@pytest.mark.slow
@pytest.mark.parametrize("way", [AT_ONCE, BATCHED])
def test_a_server_that_misbehaves_is_paid_for_what_it_charges(out: Path, way: str) -> None:
    manners = Misbehaviour(
        rate_limit=0.05, server_error=0.05, wrong_json=0.1, expired_batch=0.3, failed_batch=0.1
    )
    with opened(manners) as shop:
        assert main(shop.job(out, way, "lmm.max_attempts=20", "budget.usd=100")) == 0
    assert_settled(shop, out)


class Word(BaseModel):
    word: str


@pytest.mark.parametrize("way", [None, BatchSettings(gather_s=0)])
def test_a_request_that_cannot_be_written_holds_nothing(
    tmp_path: Path, way: BatchSettings | None
) -> None:
    settings = replace(
        local_settings(), usd_per_million_input_tokens=100.0, structured_output="text", batch=way
    )
    broken = LmmRequest(
        purpose="look", prompt_version="1", instructions="Look.", content=(b"none",), answer=Word
    )
    with kept_answers(tmp_path / "answers", usd=1.0) as log:

        async def ask() -> None:
            async with client_of(settings, log=log) as client:
                client._dialect.answered(valid=True, again=False)  # no first request, alone
                await client.ask(broken)

        with pytest.raises(ValueError, match="image"):
            asyncio.run(ask())
    spent = Records(tmp_path / "answers.attempts").spent
    assert (spent.usd, spent.requests) == (0, 0)
