"""Proxies of the environment: this machine is asked past them, and failures name them."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from serving import serve
from test_eval_generators import Service, endpoint, outcomes, samples
from test_eval_judge import Judge, judged
from test_numbered import draw

from staged import proxies
from staged.backends.generators.generator import DrawnImage
from staged.backends.http.service import ServiceError
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.settings import LmmSettings

NOWHERE = "http://somebody:secret@127.0.0.1:9"
NAMES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def proxy(status: int) -> Iterator[tuple[str, list[str]]]:
    """A proxy that knows no address; yields its own, with a password, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            page = b"<html>gateway</html>"
            self.send_response(status)
            self.send_header("content-length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://somebody:secret@127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "shapes.localhost"])
@pytest.mark.parametrize("value", [NOWHERE, "socks5://127.0.0.1:9", "ftp://x"])
def test_this_machine_is_asked_past_every_proxy(
    name: str, host: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    LmmClient(LmmSettings(model="m", base_url=f"http://{host}:8000/v1", api_key_env=None))
    if host == "shapes.localhost":
        return  # not every resolver knows such names
    with serve(Service().app) as url:
        [outcome] = outcomes(endpoint(url.replace("127.0.0.1", host)), samples("a star"))
    assert isinstance(outcome, DrawnImage)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.8.0.1/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://[::ffff:127.0.0.1]:8000/v1", True),
        ("http://[::]:8000", True),
        ("http://LOCALHOST:1", True),
        ("http://localhost.:1", True),
        ("http://10.0.0.1", False),
        ("http://localhost.example.com", False),
        ("http://notlocalhost", False),
        ("https://api.openai.com/v1", False),
    ],
)
def test_addresses_of_this_machine_are_known(url: str, expected: bool) -> None:
    assert proxies.is_this_machine(url) is expected


@pytest.mark.parametrize("status", [403, 503])
def test_a_failure_behind_a_proxy_names_it(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model on the next machine; the proxy's page was taken for the model's answer."""
    with proxy(status) as (address, asked):
        monkeypatch.setenv("HTTP_PROXY", address)
        with pytest.raises(ServiceError) as caught:
            outcomes(endpoint("http://gpu7.invalid/v1", concurrency=1), samples(*"abcd"))
    assert asked and asked[0] == "http://gpu7.invalid/v1/images/generations"
    said = str(caught.value)
    assert "proxy of HTTP_PROXY; NO_PROXY=gpu7.invalid goes around it" in said
    assert "secret" not in said and str(status) in said


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", NOWHERE)
    with pytest.raises(ServiceError, match=r"does not answer.*proxy of all_proxy") as caught:
        outcomes(endpoint("http://gpu7.invalid/v1", concurrency=1), samples(*"abcd"))
    assert "secret" not in str(caught.value)


def test_proxies_are_blamed_only_where_they_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxies.blamed("http://gpu7/v1") == ""
    monkeypatch.setenv("HTTPS_PROXY", NOWHERE)
    assert proxies.blamed("http://gpu7/v1") == ""
    assert "HTTPS_PROXY" in proxies.blamed("https://gpu7/v1")
    assert proxies.blamed("https://localhost/v1") == ""
    monkeypatch.setenv("NO_PROXY", "gpu7,example.com")
    assert proxies.blamed("https://gpu7/v1") == proxies.blamed("https://a.example.com") == ""
    with pytest.raises(ServiceError) as caught:
        outcomes(endpoint("https://127.0.0.1:9/v1", concurrency=1), samples(*"abcd"))
    assert "proxy" not in str(caught.value)


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:9", "ftp://somebody:secret@x"])
def test_a_proxy_that_cannot_be_used_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SOCKS needs a package more: that was a traceback."""
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(ValueError, match="proxy of ALL_PROXY; NO_PROXY=gpu7") as caught:
        LmmClient(LmmSettings(model="m", base_url="http://gpu7/v1", api_key_env=None))
    assert "secret" not in str(caught.value)


def test_the_hub_behind_a_socks_proxy_fails_in_one_line(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-m", "staged", "generate", "a star", "--checkpoint", "no/such",
         "--out", f"{tmp_path}/out"],
        env=environment | {"ALL_PROXY": "socks5://127.0.0.1:9"}, capture_output=True, text=True,
    )  # fmt: skip
    errors = [line for line in done.stderr.split("\n") if "error" in line]
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert len(errors) == 1 and "ALL_PROXY" in errors[0]


def test_a_command_reaches_its_own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the documentation: a judge at 127.0.0.1, on a machine that is behind a proxy."""
    for name in NAMES:
        monkeypatch.setenv(name, NOWHERE)
    draw(tmp_path / "images" / "1.png")
    judge = Judge({"score": 1})
    code, _ = judged(tmp_path, tmp_path / "images", "verified", judge)
    assert code == 0 and len(judge.bodies) == 1
