"""What who runs a server needs: metrics, logs, limits, and pages of other sites kept out."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from server_process import ANN, PROMPT, ServerProcess, serving

from staged.server.access import ApiKeys
from staged.server.command import check_open

PATH = "/v1/trajectories"
LIMITS = (
    "limits.body_timeout_s=1.5", "limits.max_running=1", "limits.max_queued=2",
    "limits.max_per_client=3", "limits.max_body_bytes=200000", "limits.max_connections=40",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    out = tmp_path_factory.mktemp("operation") / "home"
    allowed = "allowed_origins=[https://draw.example.org]"
    with serving(out, *LIMITS, allowed, keys=f"ann:{ANN}") as server:
        yield server


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    out = tmp_path_factory.mktemp("open") / "home"
    with serving(out, "log_prompts=true") as server:
        yield server


@pytest.fixture
def ann(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client(ANN) as client:
        yield client


def lines(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def finished(client: httpx.Client, **asked: Any) -> dict[str, Any]:
    body = {"prompt": PROMPT, "mode": "one-shot", "stream": False, **asked}
    got = client.post(PATH, json=body)
    assert got.status_code == 202, got.text
    for _ in range(600):
        found: dict[str, Any] = client.get(f"{PATH}/{got.json()['id']}").json()
        if found["status"] != "running":
            return found
        time.sleep(0.1)
    raise AssertionError("it did not end")


def test_a_connection_outlives_what_clients_keep_of_it(server: ServerProcess) -> None:
    """httpx uses one again within five seconds, which is when uvicorn would close it."""
    address = httpx.URL(server.url)
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    for pause_s in (0.0, 5.5):
        time.sleep(pause_s)
        connection.request("GET", "/ready")
        assert connection.getresponse().read()
    connection.close()


def test_what_happens_is_counted(ann: httpx.Client) -> None:
    def metrics() -> dict[str, float]:
        got = ann.get("/metrics")
        assert got.headers["content-type"].startswith("text/plain; version=0.0.4")
        counted = (line.rsplit(" ", 1) for line in got.text.splitlines() if line[0] != "#")
        return {name: float(value) for name, value in counted}

    before = metrics()
    assert finished(ann)["status"] == "complete"
    ann.get("/somewhere/private")
    after = metrics()
    ended = 'staged_trajectories_total{end="complete",kind="trajectory"}'
    assert after[ended] == before.get(ended, 0) + 1
    assert after["staged_flow_steps_total"] == before["staged_flow_steps_total"] + 2
    assert after['staged_steps_total{step="sketch"}'] >= 1
    assert after["staged_queue_seconds_count"] == before["staged_queue_seconds_count"] + 1
    assert after["staged_queued"] == after["staged_running"] == 0
    # What was read for it was given back.
    assert after["staged_cached_tokens"] == 0
    asked = 'staged_http_requests_total{method="POST",route="/v1/trajectories",status="202"}'
    assert after[asked] == before.get(asked, 0) + 1
    assert after['staged_http_requests_total{method="GET",route="other",status="404"}'] >= 1
    assert not any("private" in name for name in after)


def test_metrics_are_not_for_everybody(server: ServerProcess) -> None:
    with server.client() as anyone:
        assert anyone.get("/metrics").status_code == 401


def test_the_log_is_json_and_holds_neither_prompts_nor_keys(
    server: ServerProcess, ann: httpx.Client
) -> None:
    finished(ann)
    ann.post(PATH, json={"prompt": "a photo of my secret dog"}, headers={"X-Request-Id": "mine-1"})
    ann.get("/nowhere/else?key=hidden")
    time.sleep(0.3)
    told = lines(server)
    ended = [line for line in told if line["event"] == "trajectory"][-1]
    assert (ended["client"], ended["end"], ended["flow_steps"]) == ("ann", "complete", 2)
    asked = next(line for line in told if line.get("request") == "mine-1")
    assert (asked["status"], asked["route"], asked["client"]) == (400, PATH, "ann")
    assert asked["time"].endswith("Z") and asked["ms"] >= 0 and asked["level"] == "info"
    text = server.log.read_text()
    for word in ("secret dog", "red circle", ANN, "hidden", "nowhere"):
        assert word not in text


def test_prompts_are_logged_where_they_are_asked_for(open_server: ServerProcess) -> None:
    with open_server.client() as client:
        finished(client)
    ended = [line for line in lines(open_server) if line["event"] == "trajectory"]
    assert ended[-1]["prompt"] == PROMPT


def test_an_id_of_a_request_is_kept_if_it_is_one(ann: httpx.Client) -> None:
    got = ann.get("/health", headers={"X-Request-Id": "abc.1"})
    assert got.headers["x-request-id"] == "abc.1"
    got = ann.get("/health", headers={"X-Request-Id": "no id"})
    assert got.headers["x-request-id"] != "no id"


# --- limits -------------------------------------------------------------------------------------


def raw(server: ServerProcess) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def test_a_body_that_does_not_come_is_not_waited_for(server: ServerProcess) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: {server.url[7:]}\r\nContent-Length: 90\r\n\r\n"
    with raw(server) as connection:
        connection.sendall(head.encode() + b'{"prompt"')
        assert b" 408 " in connection.recv(200)


def test_a_body_that_is_too_long_is_not_read_whether_it_says_so_or_not(
    server: ServerProcess, ann: httpx.Client
) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: {server.url[7:]}\r\nContent-Length: 99999999\r\n\r\n"
    with raw(server) as connection:
        connection.sendall(head.encode())
        assert b" 413 " in connection.recv(200)

    def pieces() -> Iterator[bytes]:
        for _ in range(300):
            yield b" " * 1000

    got = ann.post(PATH, content=pieces(), headers={"Content-Type": "application/json"})
    assert got.status_code == 413 and got.json()["error"]["code"] == "body_too_long"


def test_more_than_fit_are_told_to_come_again(server: ServerProcess, ann: httpx.Client) -> None:
    long = {"prompt": PROMPT, "stream": False, "num_flow_steps": 250}
    got = [ann.post(PATH, json=long) for _ in range(5)]
    assert [answer.status_code for answer in got[:3]] == [202] * 3
    for answer in got[3:]:
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"]["type"] == "rate_limit_error"
    ids = [answer.json()["id"] for answer in got[:3]]
    # What was refused has left no trace.
    listed = {found["id"] for found in ann.get(PATH).json()["data"]}
    assert set(ids) <= listed and got[3].headers.get("x-trajectory-id") is None
    for id in ids:
        assert ann.post(f"{PATH}/{id}/cancel").status_code == 200
    assert finished(ann)["status"] == "complete"


def test_more_connections_than_fit_are_refused_and_others_still_answered(
    server: ServerProcess,
) -> None:
    held = [raw(server) for _ in range(60)]
    try:
        statuses = []
        for connection in held:
            connection.sendall(f"GET /health HTTP/1.1\r\nHost: {server.url[7:]}\r\n\r\n".encode())
            statuses.append(connection.recv(100).split(b" ")[1])
        assert set(statuses) == {b"200", b"503"}
    finally:
        for connection in held:
            connection.close()
    time.sleep(0.5)
    with server.client() as client:
        assert client.get("/health").status_code == 200


def test_readers_that_never_read_do_not_keep_others_waiting(
    server: ServerProcess, ann: httpx.Client
) -> None:
    body = json.dumps({"prompt": PROMPT, "mode": "one-shot"})
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {server.url[7:]}\r\nAuthorization: Bearer {ANN}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with raw(server) as silent:
        silent.sendall(f"{head}{body}".encode())
        assert finished(ann)["status"] == "complete"


def test_what_is_no_http_hurts_nobody(server: ServerProcess, ann: httpx.Client) -> None:
    for nonsense in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"\0" * 5000, b"POST / HTTP/9.9\r\n"):
        with raw(server) as connection:
            connection.sendall(nonsense)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(200)
    assert ann.get("/ready").status_code == 200


def test_many_clients_at_once_are_all_answered_or_refused(
    server: ServerProcess, ann: httpx.Client
) -> None:
    statuses: list[int] = []

    def ask(number: int) -> None:
        with server.client(ANN) as client:
            body = {"prompt": PROMPT, "mode": "one-shot", "seed": number}
            with client.stream("POST", PATH, json=body) as response:
                statuses.append(response.status_code)
                for _ in response.iter_lines():
                    if number % 3 == 0:
                        break  # hangs up

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(statuses) == 20 and set(statuses) <= {200, 429} and 200 in statuses
    for _ in range(600):
        values = dict(
            line.rsplit(" ", 1) for line in ann.get("/metrics").text.splitlines() if line[0] != "#"
        )
        if float(values["staged_running"]) == float(values["staged_queued"]) == 0:
            break
        time.sleep(0.1)
    assert float(values["staged_cached_tokens"]) == float(values["staged_readers"]) == 0


# --- who may ask --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("null", 403),
        ("https://draw.example.org", 200),
        (None, 200),
        ("same", 200),
    ],
)
def test_pages_of_other_sites_may_not_ask(
    server: ServerProcess, ann: httpx.Client, origin: str | None, status: int
) -> None:
    headers = {} if origin is None else {"Origin": server.url if origin == "same" else origin}
    got = ann.get(PATH, headers=headers)
    assert got.status_code == status
    shared = got.headers.get("access-control-allow-origin")
    assert shared == (origin if origin == "https://draw.example.org" else None)


def test_a_server_without_keys_is_asked_under_this_machines_names_alone(
    open_server: ServerProcess,
) -> None:
    port = open_server.url.rsplit(":", 1)[1]
    with open_server.client() as client:
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
            assert client.get("/health", headers={"Host": host}).status_code == 200
        for host in ("evil.example", f"evil.example:{port}", "["):
            assert client.get("/health", headers={"Host": host}).status_code in (400, 403)


def test_a_server_that_others_reach_needs_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGED_API_KEYS", "")
    none = ApiKeys.from_environment()
    check_open("127.0.0.1", none)
    with pytest.raises(ValueError, match=r"host is 0\.0\.0\.0, .* set STAGED_API_KEYS to name:key"):
        check_open("0.0.0.0", none)
    monkeypatch.setenv("STAGED_API_KEYS", f"ann:{ANN}")
    check_open("0.0.0.0", ApiKeys.from_environment())


@pytest.mark.parametrize("keys", ["ann:short", "x" * 15, f"a:{ANN},b:{ANN}", f"a:{ANN},a:{ANN}2"])
def test_keys_that_are_none_are_refused_and_not_told(
    keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGED_API_KEYS", keys)
    with pytest.raises(ValueError, match="STAGED_API_KEYS") as caught:
        ApiKeys.from_environment()
    assert ANN not in str(caught.value) and "short" not in str(caught.value)
