"""A data job whose requests go in batches, to the miniature's language model behind real HTTP."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import Command
from serving import serve
from starlette.applications import Starlette

from data_pipelines.__main__ import main
from data_pipelines.job import LEDGER
from staged.jobs.ledger import Ledger
from staged.jobs.records import Records
from staged.shapes.players.batches import BatchDesk
from staged.shapes.players.lmm import create_app
from staged.shapes.players.misbehaviour import SHAPES_LMM, Misbehaviour
from staged.shapes.tasks import sample_prompt
from staged.shards import read_index, read_shards, validate
from staged.trajectory import Step

PROMPTS = 8
BATCHED = "lmm.batch={gather_s: 0.05, poll_s: 0.01}"


@dataclass
class Endpoint:
    """A server, and how often each request was answered in a batch."""

    url: str
    desk: BatchDesk

    def arguments(self, out: Path, *more: str) -> list[str]:
        lmm = [f"lmm.model={SHAPES_LMM}", f"lmm.base_url={self.url}", "lmm.api_key_env=null"]
        settings = [*lmm, "lmm.backoff_s=0", f"prompts.count={PROMPTS}", f"concurrency={PROMPTS}"]
        prompts = f"prompts.file={out.parent / 'prompts.txt'}"
        return ["plan-sketch", *settings, prompts, "--out", str(out), *more]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    texts = [sample_prompt("two_object", rng, "train").text for _ in range(PROMPTS)]
    (tmp_path / "prompts.txt").write_text("\n".join(texts) + "\n")
    return tmp_path


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(create_app()) as found:
        yield found


@contextmanager
def serving(app: Starlette) -> Iterator[Endpoint]:
    with serve(app) as url:
        yield Endpoint(url, app.state.batches)


def content(out: Path) -> dict[str, bytes]:
    assert validate(out).ok
    names = [*(entry.shard for entry in read_index(out)), "index.json", "offsets.json"]
    return {name: (out / name).read_bytes() for name in names}


@pytest.fixture
def whole(folder: Path, endpoint: Endpoint) -> dict[str, bytes]:
    """The same job, asked at once."""
    assert main(endpoint.arguments(folder / "whole")) == 0
    assert not endpoint.desk.answered
    return content(folder / "whole")


def test_batches_make_the_same_data_at_half_the_price(
    folder: Path, endpoint: Endpoint, whole: dict[str, bytes]
) -> None:
    out, at_once = folder / "batched", Records(folder / "whole" / LEDGER)
    assert main(endpoint.arguments(out, BATCHED)) == 0
    assert content(out) == whole
    batched = Records(out / LEDGER)
    assert batched.spent == at_once.spent
    # All but the first, which goes alone to find out what the endpoint takes.
    assert endpoint.desk.answered.total() == at_once.spent.requests - 1
    assert set(endpoint.desk.answered.values()) == {1}

    price, cheap = "lmm.usd_per_million_input_tokens=100", folder / "cheap"
    assert main(endpoint.arguments(folder / "dear", price)) == 0
    assert main(endpoint.arguments(cheap, price, BATCHED)) == 0
    dear, cheap_usd = (Records(f / LEDGER).spent.usd for f in (folder / "dear", cheap))
    assert 0.5 * dear < cheap_usd < 0.6 * dear


def test_expired_and_failed_batches_and_bad_lines_end_as_all_else_does(
    folder: Path, whole: dict[str, bytes]
) -> None:
    manners = Misbehaviour(
        rate_limit=0.05, server_error=0.05, wrong_json=0.05, expired_batch=0.3, failed_batch=0.1
    )
    with serving(create_app(manners)) as endpoint:
        out = folder / "nasty"
        assert main(endpoint.arguments(out, BATCHED, "lmm.max_attempts=20")) == 0
        made = Records(out / LEDGER)
        ends = {
            key: [made._answer(answer).data["outcome"] for answer in made._all_answers(key)]
            for key in endpoint.desk.answered
        }
    assert {end for of_one in ends.values() for end in of_one} >= {
        "ok", "invalid_output", "rate_limit", "server_error", "timeout"
    }  # fmt: skip
    # What was answered is in the ledger once for each time, and beside it what was not in time.
    assert all(of_one.count("ok") == 1 for of_one in ends.values())
    assert sum(map(len, ends.values())) > endpoint.desk.answered.total() > len(ends)
    assert steps(out) == steps(folder / "whole")


DEAR = ("lmm.usd_per_million_input_tokens=100", "lmm.usd_per_million_output_tokens=100")


def billed(out: Path) -> float:
    """What the answers cost that the ledger has, without what is held for others."""
    return sum(cost["usd"] for cost in Records(out / LEDGER).costs().values())


def test_no_batch_takes_a_job_above_its_budget_and_what_it_holds_is_freed(
    folder: Path, endpoint: Endpoint, whole: dict[str, bytes]
) -> None:
    """A batch of eight used to be sent as long as one cent was left."""
    assert main(endpoint.arguments(folder / "free", *DEAR, BATCHED)) == 0
    cost, most = billed(folder / "free"), 1.2
    endpoint.desk.answered.clear()
    out = folder / "held"
    tight = endpoint.arguments(out, *DEAR, BATCHED, "lmm.max_output_tokens=1000")
    assert main([*tight, f"budget.usd={most}"]) == 3
    assert 0.5 * most < billed(out) <= most < cost and endpoint.desk.answered
    # All that was held has been freed: the two counts are of the same answers.
    assert Records(out / LEDGER).spent.usd == pytest.approx(billed(out))
    assert main([*tight, f"budget.usd={2 * cost}"]) == 0
    assert steps(out) == steps(folder / "whole")
    assert set(endpoint.desk.answered.values()) == {1}
    assert billed(out) == pytest.approx(cost, rel=0.05)


@pytest.mark.slow
def test_batches_of_two_processes_share_one_budget(folder: Path, endpoint: Endpoint) -> None:
    out, most = folder / "shared", 1.2
    arguments = endpoint.arguments(
        out, *DEAR, BATCHED, "lmm.max_output_tokens=1000", f"budget.usd={most}"
    )
    both = [
        Command([*arguments, "--rank", str(n), "--world-size", "2"], folder / f"{n}.log")
        for n in range(2)
    ]
    assert [command.end() for command in both] == [3, 3]
    assert 0 < billed(out) <= most and endpoint.desk.answered
    assert Records(out / LEDGER).spent.usd == pytest.approx(billed(out))


def steps(out: Path) -> list[tuple[Step, ...]]:
    return [sample.trajectory.steps for sample in read_shards(out)]


@pytest.mark.parametrize(
    "lost",
    [pytest.param("before it is sent", marks=pytest.mark.slow), "before its number is kept"],
)
def test_a_batch_that_a_crash_cut_off_is_found_or_sent_and_never_bought_twice(
    folder: Path,
    endpoint: Endpoint,
    whole: dict[str, bytes],
    lost: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "sending" if lost == "before it is sent" else "sent_as"
    kept = getattr(Ledger, name)

    async def crash(ledger: Ledger, *arguments: Any, **named: Any) -> None:
        if name == "sending":
            await kept(ledger, *arguments, **named)
        raise RuntimeError("a crash")

    out = folder / "cut"
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, name, crash)
        with pytest.raises(RuntimeError, match="a crash"):
            main(endpoint.arguments(out, BATCHED))
    assert main(endpoint.arguments(out, BATCHED)) == 0
    assert content(out) == whole
    assert set(endpoint.desk.answered.values()) == {1}
    made, needed = Records(out / LEDGER), Records(folder / "whole" / LEDGER)
    assert made.spent.requests == needed.spent.requests, "admitted once"


def test_a_batch_that_the_endpoint_does_not_know_stops_the_job(
    folder: Path, endpoint: Endpoint
) -> None:
    out = folder / "lost"
    assert main(endpoint.arguments(out, BATCHED, "budget.requests=4")) == 3
    journal = out / LEDGER / "00000.jsonl"
    kept = [line for line in journal.read_bytes().splitlines(True) if b'"answer"' not in line]
    journal.write_bytes(b"".join(kept))
    endpoint.desk._batches.clear()
    with pytest.raises(ValueError, match=r"batch batch_0, which this job has sent, .*404.*account"):
        main(endpoint.arguments(out, BATCHED))


@pytest.mark.parametrize("kills", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_after_kills_at_any_instant_every_request_was_answered_once(
    folder: Path, endpoint: Endpoint, whole: dict[str, bytes], kills: int
) -> None:
    rng, killed, job = random.Random(kills), 0, 0
    lines = len((folder / "whole" / LEDGER / "00000.jsonl").read_bytes().splitlines())
    while killed < kills:
        out = folder / f"killed{job}"
        process = Command(
            endpoint.arguments(out, BATCHED, "lmm.batch.gather_s=0.2"), out.with_suffix(".log")
        )
        enough = written(out) + rng.randint(1, lines // 4)
        while process.running and written(out) < enough:
            time.sleep(0.002)
        if process.kill():
            killed += 1
            continue
        assert process.end() == 0
        assert content(out) == whole
        job += 1
        endpoint.desk.answered.clear()
    assert main(endpoint.arguments(out, BATCHED)) == 0
    assert content(out) == whole
    assert set(endpoint.desk.answered.values()) <= {1}


def written(out: Path) -> int:
    journal = out / LEDGER / "00000.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0
