"""Several servers behind one address: what one of them has is found, whoever asks for it."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import serving as sockets
import yaml
from server_process import PROMPT, ROOT, SMALL, ServerProcess, serving, told
from starlette.testclient import TestClient

from staged import settings
from staged.generate.model import DrawingModel
from staged.server.access import ApiKeys
from staged.server.app import create_app
from staged.server.history import History
from staged.server.replicas import _environment
from staged.server.router import create_router
from staged.server.service import DrawingService
from staged.server.settings import ServerLimits, ServeSettings

PATH = "/v1/trajectories"
ASKED = {"prompt": PROMPT, "mode": "one-shot", "seed": 1}


class Pair:
    """Two servers in this process, and a client of the router before them."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.addresses: list[str | None] = []
        self.services: list[DrawingService] = []
        for number in range(2):
            made = settings.load(ServeSettings, None, [*SMALL, f"out={home / str(number)}"])
            history = stack.enter_context(History(made.out, max_kept=100))
            service = DrawingService(made, DrawingModel(made), history)
            service.scheduler.start()
            assert service.scheduler.ready.wait(300)
            stack.callback(service.scheduler.drain, 30)
            url = stack.enter_context(sockets.serve(create_app(service, ApiKeys({}))))
            self.services.append(service)
            self.addresses.append(url.removesuffix("/v1"))
        router = create_router(lambda: self.addresses, ServerLimits(max_body_bytes=200_000))
        self.client = stack.enter_context(TestClient(router, base_url="http://127.0.0.1"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(tmp_path_factory.mktemp("pair"), stack)


def draw(client: httpx.Client, **more: Any) -> list[Any]:
    with client.stream("POST", PATH, json={**ASKED, **more}) as response:
        assert response.status_code == 200, response.read()
        return list(told(response))


def test_two_replicas_are_as_one(pair: Pair) -> None:
    client = pair.client
    assert client.get("/ready").json() == {"status": "ready", "replicas": 2}
    streams = [draw(client), draw(client)]
    ids = [stream[0].data["trajectory"] for stream in streams]
    # In turns, and the same picture.
    assert [len(service.history.newest("anyone", limit=9)) for service in pair.services] == [1, 1]
    for id, stream in zip(ids, streams, strict=True):
        assert stream[-1].name == "stop"
        assert client.get(f"{PATH}/{id}").json()["id"] == id
        again = told(client.get(f"{PATH}/{id}/events", headers={"Last-Event-ID": "1"}))
        assert [event.id for event in again] == [e.id for e in stream if e.id and e.id > 1]
        [picture] = [event.data["step"]["image"] for event in stream if event.name == "sketch"]
        got = client.get(picture)
        assert got.status_code == 200 and got.headers["content-type"] == "image/png"
    # Lists go through both, newest first, page by page.
    first = client.get(PATH, params={"limit": 1}).json()
    second = client.get(PATH, params={"limit": 1, "before": first["next_before"]}).json()
    assert [page["data"][0]["id"] for page in (first, second)] == ids[::-1]
    assert second["next_before"] is None
    metrics = client.get("/metrics").text
    for number in "01":
        assert (
            f'staged_trajectories_total{{end="complete",kind="trajectory",replica="{number}"}} 1.0'
            in metrics
        )
    # Refusals pass, and so does the page.
    assert client.get(f"{PATH}/traj_none").status_code == 404
    assert client.get(PATH, params={"limit": 0}).status_code == 400
    assert client.post(PATH, content=b"x" * 300_000).status_code == 413
    assert client.get("/").headers["content-type"].startswith("text/html")


def test_what_a_replica_has_waits_for_it_and_new_things_go_to_the_others(pair: Pair) -> None:
    id = draw(pair.client)[0].data["trajectory"]
    owner = next(n for n, some in enumerate(pair.services) if some.history.find(id))
    there = list(pair.addresses)
    pair.addresses[owner] = None
    try:
        got = pair.client.get(f"{PATH}/{id}")
        assert got.status_code == 503 and got.headers["retry-after"]
        other = draw(pair.client)[0].data["trajectory"]
        assert pair.services[1 - owner].history.find(other)
    finally:
        pair.addresses[:] = there
    forked = pair.client.post(f"{PATH}/{id}/fork", json={"at": 0, "stream": False})
    assert pair.services[owner].history.find(forked.json()["id"])
    assert pair.client.delete(f"{PATH}/{other}").status_code == 204
    assert pair.client.get(f"{PATH}/{other}").status_code == 404


def test_each_replica_has_a_device_of_its_own() -> None:
    devices = {"CUDA_VISIBLE_DEVICES": "4,6"}
    given = [_environment(devices, number)["CUDA_VISIBLE_DEVICES"] for number in range(3)]
    assert given == ["4", "6", "4"]
    assert _environment({"A": "b"}, 1) == {"A": "b"}


@pytest.mark.slow
def test_a_replica_that_is_killed_comes_back_with_what_it_had(tmp_path: Path) -> None:
    with serving(tmp_path / "home", "replicas=2") as server, server.client() as client:
        until(lambda: client.get("/ready").json()["replicas"] == 2)
        ids = [draw(client)[0].data["trajectory"] for _ in range(2)]
        [killed, *_] = children(server)
        os.kill(killed, signal.SIGKILL)
        until(lambda: client.get("/health").json()["replicas"] == 1)
        until(lambda: client.get("/ready").json()["replicas"] == 2)
        for id in ids:
            assert client.get(f"{PATH}/{id}").json()["status"] == "complete"
        # Told to end, it brings to its end what was begun.
        begun = client.post(PATH, json={**ASKED, "stream": False}).json()["id"]
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    found = list((tmp_path / "home").glob("replica-*/history.db"))
    assert len(found) == 2
    with serving(tmp_path / "home", "replicas=2") as server, server.client() as client:
        until(lambda: client.get("/ready").json()["replicas"] == 2)
        assert client.get(f"{PATH}/{begun}").json()["status"] == "complete"
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.slow
def test_replicas_end_with_the_process_that_keeps_them(tmp_path: Path) -> None:
    with serving(tmp_path / "home", "replicas=2") as server, server.client() as client:
        until(lambda: client.get("/ready").json()["replicas"] == 2)
        kept = children(server)
        assert len(kept) == 2
        drawn = draw(client)[0].data["trajectory"]
        # One draws, and has nobody left to draw for.
        client.post(PATH, json={**ASKED, "num_flow_steps": 100, "stream": False})
        server.signal(signal.SIGKILL)
        server.wait()
        until(lambda: not any(_runs(process) for process in kept))
    # Their folders are free, and hold what they had.
    with serving(tmp_path / "home", "replicas=2") as server, server.client() as client:
        until(lambda: client.get("/ready").json()["replicas"] == 2)
        assert client.get(f"{PATH}/{drawn}").json()["status"] == "complete"


def test_a_server_ends_with_its_standard_input(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "staged", "serve", "port=0", f"out={tmp_path}", *SMALL]
    process = subprocess.Popen(
        [*command, "--until-eof"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "STAGED_API_KEYS": "", "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None and process.stdin is not None
        assert "http://" in process.stdout.readline()
        process.stdin.write("what is said there is nothing to it\n")
        process.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.stdin.close()
        assert process.wait(60) == 0
        assert process.stdout.read().endswith("ended\n")
    finally:
        process.kill()


def _runs(process: int) -> bool:
    try:
        # A zombie runs no more; who takes it in depends on what is process 1.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(holds: Any) -> None:
    for _ in range(1200):
        if holds():
            return
        time.sleep(0.25)
    raise AssertionError("it never held")


def children(server: ServerProcess) -> list[int]:
    """Its processes, whichever of its threads began them."""
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def test_the_shipped_ways_to_deploy_ask_for_what_there_is() -> None:
    deploy = ROOT / "deploy"
    container = (deploy / "Containerfile").read_text()
    entry = json.loads(container.rpartition("ENTRYPOINT ")[2])
    assert entry[:2] == ["staged", "serve"]
    for names in re.findall(r"^COPY (.+) \S+$", container, re.MULTILINE):
        assert all((ROOT / name).exists() for name in names.split())
    _, pod = yaml.safe_load_all((deploy / "kubernetes.yaml").read_text())
    [served] = pod["spec"]["template"]["spec"]["containers"]
    in_pod = settings.load(ServeSettings, None, [*entry[2:], *served["args"]])
    assert in_pod.replicas == served["resources"]["limits"]["nvidia.com/gpu"]
    assert pod["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > in_pod.drain_s + 35
    script = (deploy / "serve.slurm").read_text()
    on_node = settings.load(ServeSettings, None, shlex.split(script.rpartition("serve ")[2]))
    assert on_node.replicas == 4 and "--gpus=4" in script
