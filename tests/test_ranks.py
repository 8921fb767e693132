"""A data job of several real processes at once: one budget, nothing paid twice, one data set."""

import hashlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import Command
from serving import serve

from data_pipelines.__main__ import main
from data_pipelines.job import LEDGER
from staged.jobs.records import Records
from staged.shapes.players import lmm as shapes_lmm
from staged.shapes.players.misbehaviour import SHAPES_LMM
from staged.shapes.tasks import sample_prompt
from staged.shards import read_index, read_manifest, validate

PROMPTS = 24


class Endpoint:
    """The miniature's language model behind HTTP, which notes what it is asked and answers."""

    def __init__(self) -> None:
        self.app = shapes_lmm.create_app()
        self.asked: Counter[str] = Counter()
        self.failing: tuple[str, ...] = ()
        self.refusing = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return  # killed before it had asked
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.asked[hashlib.sha256(body).hexdigest()] += 1
        if self.refusing or any(text in body.decode() for text in self.failing):
            status = 401 if self.refusing else 500
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})
            return

        async def again() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)


@pytest.fixture
def endpoint() -> Iterator[tuple[Endpoint, str]]:
    model = Endpoint()
    with serve(model) as url:
        yield model, url


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the prompts come several times, so that ranks ask the same at the same time."""
    rng = np.random.default_rng(0)
    texts = [sample_prompt("two_object", rng, "train").text for _ in range(PROMPTS // 2)]
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("\n".join([*texts, *texts[:4] * 3]) + "\n")
    return path


def start(
    out: Path, world: int, url: str, prompts: Path, *more: str, count: int = PROMPTS
) -> list[Command]:
    lmm = [
        f"lmm.model={SHAPES_LMM}",
        f"lmm.base_url={url}",
        "lmm.api_key_env=null",
        "lmm.backoff_s=0",
    ]
    job = [f"prompts.file={prompts}", f"prompts.count={count}", "concurrency=4", *lmm]
    return start_ranks(out, world, *job, *more)


def start_ranks(out: Path, world: int, *job: str) -> list[Command]:
    command = ["plan-sketch", *job, "--out", str(out), "--world-size", str(world)]
    return [
        Command([*command, "--rank", str(rank)], out.with_name(f"{out.name}-{rank}.log"))
        for rank in range(world)
    ]


def codes(commands: Sequence[Command]) -> list[int]:
    return [command.end() for command in commands]


def wait_for(records: int, out: Path) -> None:
    """Wait until the ledgers of a running job have grown to so many lines."""
    deadline = time.monotonic() + 120
    while sum(p.read_bytes().count(b"\n") for p in (out / LEDGER).glob("*.jsonl")) < records:
        assert time.monotonic() < deadline, "the job makes no progress"
        time.sleep(0.02)


def content(folder: Path) -> dict[str, bytes]:
    """The whole data set: shards, index, offsets, manifest, card."""
    assert validate(folder).ok
    names = [entry.shard for entry in read_index(folder)]
    names += ["index.json", "offsets.json", "manifest.json", "README.md"]
    return {name: (folder / name).read_bytes() for name in names}


def shards(folder: Path) -> dict[str, bytes]:
    """The data set without what says how often services were called, in vain included."""
    told = ("manifest.json", "README.md")
    return {name: data for name, data in content(folder).items() if name not in told}


@pytest.mark.parametrize(
    ("limit", "name", "first", "second"),
    [
        ("requests", "requests", 20, 30),
        pytest.param("images", "images", 5, 9, marks=pytest.mark.slow),
        pytest.param("usd", "images", 5, 9, marks=pytest.mark.slow),
    ],
)
def test_a_budget_is_one_for_all_ranks_and_for_the_life_of_the_job(
    out: Path, endpoint: Any, prompts: Path, limit: str, name: str, first: int, second: int
) -> None:
    model, url = endpoint
    price = ["drawing.usd_per_image=0.1"] if limit == "usd" else []
    unit = 0.1 if limit == "usd" else 1
    for world, most in ((4, first), (2, second)):
        budget = f"budget.{limit}={most * unit:g}"
        assert codes(start(out, world, url, prompts, budget, *price)) == [3] * world
        spent = Records(out / LEDGER).spent
        assert getattr(spent, name) == most
        assert spent.requests == model.asked.total()
    assert codes(start(out, 3, url, prompts, *price)).count(0) == 3
    assert (out / "index.json").exists()


DEAR = ("lmm.usd_per_million_input_tokens=100", "lmm.usd_per_million_output_tokens=100")


def test_requests_in_flight_take_no_ranks_above_their_budget(
    out: Path, endpoint: Any, prompts: Path
) -> None:
    """Twelve requests used to be sent as long as one cent was left."""
    model, url = endpoint
    most, tight = 4.0, [*DEAR, "lmm.max_output_tokens=1000"]
    assert codes(start(out, 3, url, prompts, *tight, f"budget.usd={most}")) == [3] * 3
    spent = Records(out / LEDGER).spent
    assert 0.5 * most < billed(out) <= most
    assert spent.requests == model.asked.total()
    # What was held for answers and not used is free again.
    assert spent.usd == pytest.approx(billed(out))


def test_a_job_whose_key_is_refused_holds_no_money(out: Path, endpoint: Any, prompts: Path) -> None:
    model, url = endpoint
    model.refusing = True
    job = start(out, 1, url, prompts, *DEAR, "budget.usd=9", "lmm.max_attempts=1")
    assert codes(job) == [2]
    spent = Records(out / LEDGER).spent
    assert spent.usd == pytest.approx(0) and 0 < model.asked.total() <= spent.requests


def billed(out: Path) -> float:
    """What the answers cost that the ledger has, without what is held for others."""
    return sum(cost["usd"] for cost in Records(out / LEDGER).costs().values())


def test_ranks_that_ask_the_same_at_once_ask_once(out: Path, endpoint: Any, prompts: Path) -> None:
    model, url = endpoint
    assert codes(start(out, 4, url, prompts)) == [0] * 4
    assert set(model.asked.values()) == {1}
    assert Records(out / LEDGER).spent.requests == model.asked.total()


def test_four_ranks_killed_then_two_killed_then_three_make_what_one_undisturbed_makes(
    tmp_path: Path, endpoint: Any, prompts: Path
) -> None:
    model, url = endpoint
    assert codes(start(tmp_path / "whole", 1, url, prompts)) == [0]
    whole = model.asked.copy()
    model.asked.clear()

    # Room for what two kills can take of what is in flight (four units a rank, each with a call or
    # an image), and for no more.
    needed, out = Records(tmp_path / "whole" / LEDGER), tmp_path / "killed"
    requests = whole.total() + (4 + 2) * 4
    images = needed.spent.images + (4 + 2) * 4
    budget = [f"budget.requests={requests}", f"budget.images={images}"]
    for world, records in ((4, 60), (2, 160)):
        processes = start(out, world, url, prompts, *budget)
        wait_for(records, out)
        assert [process.kill() for process in processes] == [True] * world, "one had ended before"
        assert not (out / "index.json").exists()
    assert codes(start(out, 3, url, prompts, *budget)) == [0] * 3

    made = Records(out / LEDGER)
    # Answers that are kept, by purpose: none of them is there twice, images included.
    calls, once = answered(made), answered(needed)
    assert calls == once
    # The endpoint was asked nothing else, and twice only what a kill took while it was in flight.
    assert model.asked.keys() == whole.keys()
    assert model.asked.total() <= made.spent.requests <= requests
    assert needed.spent.images <= made.spent.images <= images
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_ranks_killed_at_random_make_the_same_data(
    tmp_path: Path, endpoint: Any, prompts: Path, seed: int
) -> None:
    _, url = endpoint
    assert codes(start(tmp_path / "whole", 1, url, prompts)) == [0]
    rng, out = random.Random(seed), tmp_path / "killed"
    for _ in range(8):
        world = rng.randint(1, 4)
        processes = start(out, world, url, prompts)
        time.sleep(rng.uniform(1.0, 4.0))
        for process in processes:
            if rng.random() < 0.8:
                process.kill()
        for process in processes:
            process.end()
    assert set(codes(start(out, 3, url, prompts))) == {0}
    assert answered(Records(out / LEDGER)) == answered(Records(tmp_path / "whole" / LEDGER))
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, 200])
def test_after_many_kills_nothing_that_was_paid_for_is_lost_or_bought_again(
    tmp_path: Path, endpoint: Any, prompts: Path, kills: int
) -> None:
    """A job is killed again and again, wherever it is by then; when one is finished, the next."""
    model, url = endpoint
    assert codes(start(tmp_path / "whole", 1, url, prompts)) == [0]
    needed = Records(tmp_path / "whole" / LEDGER)
    whole, all_lines = model.asked.copy(), lines(tmp_path / "whole")
    rng, jobs, killed, killed_here = random.Random(kills), 0, 0, 0
    while killed < kills or killed_here:
        out = tmp_path / f"killed{jobs}"
        if killed_here == 0:
            model.asked.clear()
        [process] = start(out, 1, url, prompts)
        if killed < kills:
            enough = lines(out) + rng.randint(1, 2 * all_lines // 8)
            while process.running and lines(out) < enough:
                time.sleep(0.002)
            if process.kill():
                killed, killed_here = killed + 1, killed_here + 1
                continue
        assert process.end() == 0
        made = Records(out / LEDGER)
        calls, once = answered(made), answered(needed)
        assert calls == once
        assert model.asked.keys() == whole.keys()
        # A kill may take what is in flight: four units, each with a call. On a loaded machine a
        # connection may break besides; such calls are made again, and are no answers.
        broken = sum(v["calls"] for v in made.costs().values()) - answered(made).total()
        most = whole.total() + 4 * killed_here + broken
        assert model.asked.total() <= made.spent.requests <= most
        assert shards(out) == shards(tmp_path / "whole")
        jobs, killed_here = jobs + 1, 0
    assert jobs >= 1


def answered(made: Records) -> Counter[str]:
    """Answers and images that a ledger has, by purpose: what was tried in vain is none."""
    every = (one for attempts in made._made.values() for one in attempts)
    return Counter(one.purpose for one in every if one.paid)


def lines(folder: Path) -> int:
    """Records of a job so far."""
    path = folder / LEDGER / "00000.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def test_a_finished_job_may_be_started_again_on_all_ranks(
    out: Path, endpoint: Any, prompts: Path
) -> None:
    _, url = endpoint
    assert codes(start(out, 4, url, prompts, count=8)) == [0] * 4
    before = content(out)
    written = (out / "index.json").stat().st_mtime_ns
    assert codes(start(out, 4, url, prompts, count=8)) == [0] * 4
    assert (out / "index.json").stat().st_mtime_ns == written, "nothing was to be done"
    # Where a shard is gone, one of them writes, and the others wait for it; what a killed one on
    # another machine left of a shard goes.
    (out / "shard-000000.tar").rename(out / ".shard-000000.tar.0123abcd-17-0.tmp")
    assert codes(start(out, 4, url, prompts, count=8)) == [0] * 4
    assert content(out) == before
    assert not [path for path in out.rglob("*") if path.suffix == ".tmp"]


@pytest.mark.parametrize("together", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_failed_units_are_tried_again_in_one_round_of_all_ranks(
    out: Path, endpoint: Any, prompts: Path, together: bool
) -> None:
    model, url = endpoint
    short = ["lmm.max_attempts=1"]
    model.failing = tuple(prompts.read_text().splitlines()[:2])  # one of each rank
    assert codes(start(out, 2, url, prompts, *short, count=6)) == [0, 0]
    assert read_manifest(out).acceptance["samples"]["failed"] == 2
    model.failing = ()
    retry = [*short, "--retry-failed"]
    if together:
        assert codes(start(out, 2, url, prompts, *retry, count=6)) == [0, 0]
    else:
        for rank in (1, 0):
            processes = start(out, 2, url, prompts, *retry, count=6)
            processes[1 - rank].kill()
            assert processes[rank].end() == 0
    assert Records(out / LEDGER).newest_round == 2
    acceptance = read_manifest(out).acceptance["samples"]
    assert sum(acceptance.values()) == 6 and "failed" not in acceptance


@pytest.mark.slow
def test_ranks_whose_units_fail_again_end_the_round_with_shards(out: Path) -> None:
    job = ["prompts.count=24", "misbehaviour.refusal=0.05"]
    assert codes(start_ranks(out, 2, *job)) == [0, 0]
    failed = read_manifest(out).acceptance["samples"]["failed"]
    assert failed > 1
    (out / "index.json").unlink()
    assert codes(start_ranks(out, 2, *job, "--retry-failed")) == [0, 0]
    assert Records(out / LEDGER).newest_round == 2
    assert (out / "index.json").exists()
    # A refusal was paid for, so it stands.
    assert read_manifest(out).acceptance["samples"]["failed"] == failed


def test_a_ray_cluster_leaves_what_one_process_leaves(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra `ray`")
    job = ["plan-sketch", "prompts.count=9"]
    assert main([*job, "--out", str(tmp_path / "one")]) == 0
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        assert main(["on-ray", "3", *job, "--out", str(tmp_path / "ray")]) == 0
    finally:
        ray.shutdown()
    assert content(tmp_path / "ray") == content(tmp_path / "one")
    assert len((tmp_path / "ray" / LEDGER / "writers").read_text().split()) == 3


@pytest.mark.slow
def test_a_ray_task_whose_worker_is_killed_goes_on(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra `ray`")
    out, job = tmp_path / "ray", ["plan-sketch", "prompts.count=120", "concurrency=2"]
    assert main([*job, "--out", str(tmp_path / "one")]) == 0
    ray.init(num_cpus=2, include_dashboard=False)
    killed: list[int] = []

    def kill() -> None:
        wait_for(60, out)
        for worker in Path("/proc").glob("[0-9]*"):
            # Ray names a worker by what it runs, and ours are children of the child that is ours.
            named = (worker / "cmdline").read_bytes().startswith(b"ray::_run")
            if named and parent(parent(int(worker.name))) == os.getpid():
                os.kill(int(worker.name), signal.SIGKILL)
                killed.append(int(worker.name))
                return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert main(["on-ray", "2", *job, "--out", str(out)]) == 0
    finally:
        killer.join()
        ray.shutdown()
    assert killed, "no worker was found"
    assert content(out) == content(tmp_path / "one")


def parent(pid: int) -> int:
    """The process that started another."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.split("\n") if line.startswith("PPid:")).split()[1])
