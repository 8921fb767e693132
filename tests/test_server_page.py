"""The page of the server: its files, and what a person does with it in a real browser."""

import re
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_process import ANN, PROMPT, ServerProcess, serving

from staged import images
from staged.data_urls import from_base64

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DONE = re.compile("^Done")
PARTS = ["house.css", "page.css", "page.js", "api.js", "dom.js", "pane.js"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    out = tmp_path_factory.mktemp("page") / "home"
    with serving(out, "preview_every=1", "inspect_sketch=always", keys=f"ann:{ANN}") as server:
        yield server


# --- without a browser --------------------------------------------------------------------------


def test_the_page_and_its_parts_come_from_the_server_alone(server: ServerProcess) -> None:
    with server.client() as nobody:  # the page itself needs no key; what it asks for does
        page = nobody.get("/")
        assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
        linked = set(re.findall(r'(?:href|src)="/page/([^"]+)"', page.text))
        assert linked == {"house.css", "page.css", "page.js"}
        for name in PARTS:
            part = nobody.get(f"/page/{name}")
            assert part.status_code == 200, name
            assert "default-src 'none'" in part.headers["content-security-policy"]
            assert part.headers["x-content-type-options"] == "nosniff"
            assert not re.search(r"https?://", part.text), f"{name} names another host"
        assert not re.search(r"https?://", page.text)
        # The colours of the reports lie in a file of their own, which figures have too.
        house = nobody.get("/page/house.css").text
        assert "--ink:" in house and "var(--ink)" in house
        for name in ("index.html", "page.py", "..%2Fapp.py", "nothing"):
            assert nobody.get(f"/page/{name}").status_code == 404


def test_what_comes_in_is_never_read_as_html() -> None:
    for name in PARTS[2:]:
        code = files("staged.server").joinpath(f"page/{name}").read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", code)


# --- in a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs chromium (Debian: apt install chromium)")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, server: ServerProcess) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.problems, page.hosts = [], set()
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda request: page.hosts.add(httpx.URL(request.url).host))
    enter(page, server.url)
    yield page
    assert page.problems == []
    assert page.hosts <= {"127.0.0.1", ""}, "the page asked another host"
    context.close()


def enter(page: Any, url: str) -> None:
    """Open an address in a tab that has no key yet."""
    page.goto(url)
    page.get_by_label("This server asks for an API key").fill(ANN)
    page.get_by_role("button", name="Use it").click()


def ended(page: Any, number: int = 1) -> None:
    from playwright.sync_api import expect

    states = page.locator(".pane .about [role=status]")
    expect(states).to_have_text([DONE] * number, timeout=120_000)


def draw(page: Any, **settings: str) -> None:
    page.get_by_label("What to draw").fill(PROMPT)
    if settings:
        page.get_by_text("what is left empty").click()
    for label, value in settings.items():
        page.get_by_label(label.replace("_", " "), exact=True).fill(value)
    page.get_by_role("button", name="Draw in stages").click()


def test_a_drawing_is_watched_and_found_again_by_its_address(
    page: Any, server: ServerProcess
) -> None:
    draw(page, Seed="3")
    page.locator(".step", has_text="plan").first.wait_for()
    address = page.url
    page.close()  # the tab goes; the drawing goes on
    again = page.context.new_page()
    enter(again, address)
    ended(again)
    picture = again.locator(".pane .final img")
    assert picture.get_attribute("src").startswith("/v1/trajectories/")
    assert picture.evaluate("image => image.naturalWidth") > 0
    assert "seed 3" in " ".join(again.locator(".facts").inner_text().split())
    card = again.locator("#gallery a").first
    card.wait_for()
    assert card.get_attribute("href") == httpx.URL(address).fragment.join(["#", ""])


def test_a_plan_is_changed_and_a_verdict_overruled(page: Any, server: ServerProcess) -> None:
    draw(page, Seed="5")
    ended(page)
    first = page.url
    page.get_by_role("button", name="Change this plan").first.click()
    page.get_by_label("instruction").fill("add a green star")
    page.get_by_label("description").fill("a green star")
    page.get_by_role("button", name="Go on from here").click()
    page.wait_for_url(lambda url: url != first)
    ended(page)
    given = page.locator(".step.given")
    assert "add a green star" in given.last.inner_text()

    second = page.url
    verdict = page.locator(".step", has_text="inspection of the sketch").last
    overrule = verdict.get_by_role("button", name=re.compile("Accept it|Refuse it"))
    accepted = "Accept it" in overrule.inner_text()
    overrule.click()
    verdict.get_by_role("button", name="Go on from here").click()
    page.wait_for_url(lambda url: url != second)
    ended(page)
    mark = page.locator(".step.given .mark").last
    assert mark.inner_text() == ("accepted" if accepted else "to be revised")


def test_staged_and_one_shot_stand_side_by_side_and_fit_a_phone(
    page: Any, server: ServerProcess
) -> None:
    page.get_by_label("What to draw").fill(PROMPT)
    page.get_by_role("button", name="Compare with one shot").click()
    ended(page, 2)
    boxes = [pane.bounding_box() for pane in page.locator(".pane").all()]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_picture_restores_what_was_asked(
    page: Any, server: ServerProcess, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    with server.client(ANN) as ann:
        body = {"prompt": PROMPT, "mode": "one-shot", "seed": 5, "num_flow_steps": 3}
        [datum] = ann.post("/v1/images/generations", json=body).json()["data"]
        data = from_base64(datum["b64_json"])
        (tmp_path / "here.png").write_bytes(data)
        page.locator("#from").set_input_files(tmp_path / "here.png")
        page.wait_for_url(re.compile(datum["trajectory"]))
        ann.delete(f"/v1/trajectories/{datum['trajectory']}")
    page.locator("#from").set_input_files(tmp_path / "here.png")
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    expect(page.get_by_label("Seed", exact=True)).to_have_value("5")
    expect(page.get_by_label("Flow steps a sketch")).to_have_value("3")
    expect(page.locator("#beyond")).to_contain_text("max_flow_steps")
    (tmp_path / "plain.png").write_bytes(images.encode_png(images.decode(data)))
    page.locator("#from").set_input_files(tmp_path / "plain.png")
    expect(page.locator("#trouble")).to_contain_text("does not say how it was drawn")


def test_what_the_model_cannot_know_is_said(page: Any) -> None:
    page.get_by_label("What to draw").fill("a photo of a <b>cat</b>")
    page.keyboard.press("Control+Enter")
    trouble = page.get_by_role("alert")
    trouble.wait_for()
    assert "cat" in trouble.inner_text()
    assert page.locator(".pane").count() == 0
