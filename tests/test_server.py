"""`/v1/trajectories` of a real server: watched, left, taken up again, steered, ended, killed."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from server_process import ANN, BOB, PROMPT, ServerProcess, Told, serving, told

from staged import images
from staged.data_urls import to_base64, to_data_url
from staged.generate.picture_record import record_in
from staged.images import encode_png
from staged.trajectory import ImageRef

KEYS = f"ann:{ANN},bob:{BOB}"
PATH = "/v1/trajectories"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    out = tmp_path_factory.mktemp("server") / "home"
    with serving(out, "limits.reconnect_s=0.5", "preview_every=1", keys=KEYS) as server:
        yield server


@pytest.fixture
def ann(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client(ANN) as client:
        yield client


def draw(client: httpx.Client, **asked: Any) -> list[Told]:
    body = {"prompt": PROMPT, "seed": 3, **asked}
    with client.stream("POST", PATH, json=body) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(told(response))


def kept(events: list[Told]) -> list[Told]:
    return [event for event in events if event.id is not None]


def wait_for_end(client: httpx.Client, id: str) -> dict[str, Any]:
    for _ in range(1200):
        found: dict[str, Any] = client.get(f"{PATH}/{id}").json()
        if found["status"] != "running":
            return found
        time.sleep(0.1)
    raise AssertionError("it did not end")


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.fixture(scope="module")
def drawn(server: ServerProcess) -> list[Told]:
    """The events of one trajectory."""
    with server.client(ANN) as client:
        return draw(client)


# --- watching -----------------------------------------------------------------------------------


def test_every_stage_is_told_in_order_under_its_number(drawn: list[Told]) -> None:
    numbered = kept(drawn)
    assert [event.id for event in numbered] == list(range(1, len(numbered) + 1))
    names = [event.name for event in numbered]
    assert names[:2] == ["created", "started"] and names[-1] in ("stop", "failed")
    steps = [event for event in numbered if "step" in event.data]
    assert [event.data["index"] for event in steps] == list(range(len(steps)))
    assert all(event.data["step"]["step"] == event.name for event in steps)
    assert {event.data["trajectory"] for event in drawn} == {drawn[0].data["trajectory"]}
    assert "sketch" in names
    written = {e.data["index"]: e.data["step"] for e in numbered if "step" in e.data}
    for event in drawn:
        if event.name == "text":
            whole = written[event.data["index"]]
            assert all(whole[name].startswith(text) for name, text in event.data["step"].items())
    assert any(len(e.data["step"]) > 1 for e in drawn if e.name == "text")
    previews = [event for event in drawn if event.name == "preview"]
    assert previews and all(e.data["image"].startswith("data:image/png") for e in previews)


def test_pictures_are_at_their_addresses_for_whoever_has_one(
    server: ServerProcess, drawn: list[Told]
) -> None:
    address = next(e.data["step"]["image"] for e in drawn if e.name == "sketch")
    with server.client() as anyone:
        got = anyone.get(address)
        assert got.status_code == 200 and got.headers["content-type"] == "image/png"
        assert images.decode(got.content).shape == (48, 48, 3)
        record = record_in(ImageRef(png=got.content))
        assert (record.id, record.seed) == (drawn[0].data["trajectory"], 3)
        assert record.checkpoint == "miniature:staged" and record.settings["mode"] == "staged"
        plan = next(e.data["step"] for e in drawn if e.name == "plan")
        assert record.trajectory.last_plan is not None
        assert record.trajectory.last_plan.instruction == plan["instruction"]
        error_of(anyone.get(address[:-1] + ("0" if address[-1] != "0" else "1")), 404)
        error_of(anyone.get(address.split("?")[0]), 404)


def test_a_picture_says_how_it_was_drawn_to_whoever_has_it(
    server: ServerProcess, ann: httpx.Client, drawn: list[Told]
) -> None:
    sketch = next(e.data for e in drawn if e.name == "sketch")
    address = sketch["step"]["image"]
    image = to_base64(ann.get(address).content)
    said = ann.post("/v1/pictures", json={"image": image}).json()
    assert said["trajectory"] == drawn[0].data["trajectory"] and said["seed"] == 3
    assert said["settings"]["mode"] == "staged" and said["at"] == sketch["index"] + 1
    with server.client(BOB) as bob:  # to whom the trajectory is nothing
        assert bob.post("/v1/pictures", json={"image": image}).json()["trajectory"] is None
    plain = to_base64(encode_png(np.zeros((4, 4, 3), np.uint8)))
    told = error_of(ann.post("/v1/pictures", json={"image": plain}), 400)
    assert "does not say how it was drawn" in told["message"] and told["param"] == "image"


def test_the_same_seed_draws_the_same_picture_and_what_is_left_out_is_chosen(
    ann: httpx.Client, drawn: list[Told]
) -> None:
    again = draw(ann)
    sketches = [[{**e.data["step"]} for e in run if e.name == "sketch"] for run in (drawn, again)]
    pictures = [[step.pop("image").split("/")[-1].split("?")[0] for step in s] for s in sketches]
    assert pictures[0] == pictures[1] and sketches[0] == sketches[1]
    shots = [draw(ann, seed=None, mode="one-shot") for _ in range(2)]
    assert shots[0][0].data["seed"] != shots[1][0].data["seed"]


def test_what_has_ended_is_told_again(ann: httpx.Client, drawn: list[Told]) -> None:
    id = drawn[0].data["trajectory"]
    with ann.stream("GET", f"{PATH}/{id}/events") as response:
        assert list(told(response)) == kept(drawn)
    with ann.stream("GET", f"{PATH}/{id}/events", headers={"Last-Event-ID": "2"}) as response:
        assert list(told(response)) == kept(drawn)[2:]
    found = ann.get(f"{PATH}/{id}").json()
    assert found["steps"] == [e.data["step"] for e in kept(drawn) if "step" in e.data]
    assert found["prompt"] == PROMPT and found["seed"] == 3 and found["last_event"] == drawn[-1].id
    assert found["provenance"]["models"]["planner"] == "miniature:staged"
    assert "detector" in found["provenance"]  # the miniature world's own, beside the model


def test_a_reader_who_loses_the_connection_misses_nothing(ann: httpx.Client) -> None:
    seen: list[Told] = []
    with ann.stream("POST", PATH, json={"prompt": PROMPT, "seed": 3}) as response:
        for event in told(response):
            seen.append(event)
            if len(kept(seen)) == 3:
                break
    id, last = seen[0].data["trajectory"], str(kept(seen)[-1].id)
    with ann.stream("GET", f"{PATH}/{id}/events", headers={"Last-Event-ID": last}) as response:
        seen += list(told(response))
    numbers = [event.id for event in kept(seen)]
    assert numbers == list(range(1, len(numbers) + 1)) and seen[-1].name in ("stop", "failed")
    assert seen[-1].data.get("reason") != "cancelled"


def test_what_nobody_reads_any_more_is_cancelled_or_goes_on(
    server: ServerProcess, ann: httpx.Client
) -> None:
    ids = []
    for manner in ("cancel", "continue"):
        body = {"prompt": PROMPT, "max_rounds": 6, "on_disconnect": manner, "num_flow_steps": 40}
        with ann.stream("POST", PATH, json=body) as response:
            ids.append(response.headers["x-trajectory-id"])
            next(told(response))
    ends = [wait_for_end(ann, id) for id in ids]
    assert ends[0]["reason"] == "cancelled" and ends[1]["reason"] != "cancelled"


def test_what_is_not_streamed_is_answered_at_once(ann: httpx.Client) -> None:
    got = ann.post(PATH, json={"prompt": "A STAR.", "stream": False, "mode": "one-shot"})
    assert got.status_code == 202 and got.json()["status"] == "running"
    assert got.headers["location"] == f"{PATH}/{got.json()['id']}"
    assert got.json()["prompt"] == "A STAR." and got.json()["read_as"] == "a photo of a star"
    assert wait_for_end(ann, got.json()["id"])["status"] == "complete"


def test_a_trajectory_is_cancelled_and_deleted(ann: httpx.Client) -> None:
    body = {"prompt": PROMPT, "stream": False, "num_flow_steps": 200}
    id = ann.post(PATH, json=body).json()["id"]
    assert error_of(ann.delete(f"{PATH}/{id}"), 409)["code"] == "running"
    assert ann.post(f"{PATH}/{id}/cancel").status_code == 200
    assert wait_for_end(ann, id)["reason"] == "cancelled"
    assert ann.post(f"{PATH}/{id}/cancel").status_code == 200  # no error twice
    assert ann.delete(f"{PATH}/{id}").status_code == 204
    error_of(ann.get(f"{PATH}/{id}"), 404)


def test_one_lists_ones_own(server: ServerProcess, ann: httpx.Client) -> None:
    for color in ("red", "green", "blue"):
        prompt = f"a photo of a {color} heart"
        ann.post(PATH, json={"prompt": prompt, "stream": False, "mode": "one-shot"})
    first = ann.get(PATH, params={"words": "heart", "limit": 2}).json()
    assert [t["prompt"].split()[4] for t in first["data"]] == ["blue", "green"]
    params = {"words": "heart", "limit": 2, "before": first["next_before"]}
    second = ann.get(PATH, params=params).json()
    assert [t["prompt"].split()[4] for t in second["data"]] == ["red"]
    assert second["next_before"] is None
    with server.client(BOB) as bob:
        assert bob.get(PATH).json()["data"] == []
        error_of(bob.get(f"{PATH}/{first['data'][0]['id']}"), 404)
        error_of(bob.post(f"{PATH}/{first['data'][0]['id']}/cancel"), 404)


# --- steering -----------------------------------------------------------------------------------


def fork(client: httpx.Client, id: str, **asked: Any) -> list[Told]:
    with client.stream("POST", f"{PATH}/{id}/fork", json=asked) as response:
        assert response.status_code == 200, response.read()
        return list(told(response))


def test_a_plan_is_edited_before_it_is_drawn(ann: httpx.Client, drawn: list[Told]) -> None:
    parent = drawn[0].data["trajectory"]
    plan = {"step": "plan", "instruction": "Add a green ring.", "description": "a green ring"}
    told_of = kept(fork(ann, parent, at=0, step=plan))
    first = next(e for e in told_of if e.name == "plan")
    assert first.data["given"] and first.data["step"]["instruction"] == "add a green ring"
    assert next(e.name for e in told_of if e.data.get("given") is False) != "plan"
    found = ann.get(f"{PATH}/{told_of[0].data['trajectory']}").json()
    assert found["parent"] == parent and found["num_given"] == 1 and found["seed"] == 3
    assert found["provenance"]["forked"] == {"from": parent, "at": 0, "by_hand": True}


def test_a_verdict_is_overruled_and_steps_before_it_stay(
    ann: httpx.Client, drawn: list[Told]
) -> None:
    parent = drawn[0].data["trajectory"]
    steps = [e.data["step"] for e in kept(drawn) if "step" in e.data]
    place = next(i for i, step in enumerate(steps) if step["step"] == "sketch") + 1
    verdict = {"target": "sketch", "verdict": "revise", "critique": "the star is not blue"}
    told_of = kept(fork(ann, parent, at=place, step={"step": "inspection", **verdict}))
    given = [e.data["step"] for e in told_of if e.data.get("given")]
    assert len(given) == place + 1 and given[-1]["verdict"] == "revise"
    assert [s for s in given[:place] if s["step"] != "sketch"] == [
        s for s in steps[:place] if s["step"] != "sketch"
    ]
    follows = next(e.name for e in told_of if e.data.get("given") is False)
    assert follows == "refinement"


def test_another_seed_goes_on_otherwise(ann: httpx.Client, drawn: list[Told]) -> None:
    parent = drawn[0].data["trajectory"]
    whole = ann.get(f"{PATH}/{parent}").json()
    same = kept(fork(ann, parent, at=1))
    other = kept(fork(ann, parent, at=1, seed=12))

    def picture(events: list[Told]) -> str:
        sketch = next(e for e in events if e.name == "sketch")
        return str(sketch.data["step"]["image"]).split("/")[-1].split("?")[0]

    before = next(s["image"] for s in whole["steps"] if s["step"] == "sketch")
    assert picture(same) == before.split("/")[-1].split("?")[0] != picture(other)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"at": 99}, "at is 99, and the trajectory has"),
        ({"at": 0, "step": {"step": "refinement", "instruction": "make the ring red"}},
         "may not come at the start"),
        ({"at": 0, "step": {"step": "plan", "instruction": "add a dog", "description": "a dog"}},
         "'add a dog'"),
        ({"at": 0, "step": {"step": "plan", "instruction": " ", "description": "a star"}}, "empty"),
        ({"at": 0, "step": {"step": "sketch"}}, "step"),
        ({"at": -1}, "at"),
        ({}, "at"),
    ],
)  # fmt: skip
def test_a_fork_that_cannot_be_is_refused(
    ann: httpx.Client, drawn: list[Told], asked: dict[str, Any], message: str
) -> None:
    id = drawn[0].data["trajectory"]
    assert message in error_of(ann.post(f"{PATH}/{id}/fork", json=asked), 400)["message"]


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prompt": "a photo of a dog"}, "it knows the shapes"),
        ({"prompt": ""}, "empty text"),
        ({"prompt": "x" * 3000}, "3000 characters; the server's limit is 2000"),
        ({"prompt": "a <ins> star"}, "<ins> inside text"),
        ({}, "prompt: Field required"),
        ({"prompt": PROMPT, "promt": 1}, "promt"),
        ({"prompt": PROMPT, "mode": "two-shot"}, "mode"),
        ({"prompt": PROMPT, "seed": -1}, "seed"),
        ({"prompt": PROMPT, "seed": 2**63}, "seed"),
        ({"prompt": PROMPT, "width": 47, "height": 48}, "47"),
        ({"prompt": PROMPT, "width": 48}, "give both, or neither"),
        ({"prompt": PROMPT, "width": 2**20, "height": 2**20}, "1048576"),
        ({"prompt": PROMPT, "max_rounds": 100}, "max_rounds"),
        ({"prompt": PROMPT, "max_flow_steps": 10**6}, "max_flow_steps is 1000000"),
        ({"prompt": PROMPT, "num_flow_steps": 500}, "nothing could be drawn"),
        ({"prompt": PROMPT, "guidance_scale": -1}, "scale"),
        ({"prompt": PROMPT, "deadline_s": 0}, "deadline_s"),
        ({"prompt": PROMPT, "think": True}, "was never taught to"),
        ({"prompt": "describe the picture", "mode": "answer"}, "needs an image"),
        ({"prompt": PROMPT, "images": ["data:image/png;base64,AAAA"]}, "images[0]"),
        ({"prompt": PROMPT, "images": ["%%%"]}, "images: not base64"),
        ({"prompt": PROMPT, "images": ["AAAA"] * 5}, "5 images; the server's limit is 4"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_is_wrong(
    ann: httpx.Client, asked: dict[str, Any], message: str
) -> None:
    assert message in error_of(ann.post(PATH, json=asked), 400)["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"prompt": NaN}', 400),
        (b"[" * 100_000, 400),
        (b"\xff\xfe", 400),
        (b'{"prompt": "\\ud800"}', 400),
        (b'{"prompt": "a photo of a star", "seed": 1e999}', 400),
        (b" " * (33 * 2**20), 413),
    ],
)
def test_a_body_that_is_none_is_refused(ann: httpx.Client, body: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    error_of(ann.post(PATH, content=body, headers=headers), status)


def test_a_large_picture_is_refused_before_it_is_decoded(ann: httpx.Client) -> None:
    import numpy as np

    large = to_data_url(encode_png(np.zeros((4097, 4097, 3), np.uint8)))
    message = error_of(ann.post(PATH, json={"prompt": PROMPT, "images": [large]}), 400)["message"]
    assert "images[0]" in message and "pixels" in message


@pytest.mark.parametrize("key", [None, "wrong-key-wrong-key", "é"])
def test_without_a_known_key_nothing_is_told(server: ServerProcess, key: str | None) -> None:
    headers = {} if key is None else {b"Authorization": f"Bearer {key}".encode()}
    with server.client() as client:
        for method, path in (("POST", PATH), ("GET", PATH), ("GET", f"{PATH}/traj_x")):
            got = client.request(method, path, json={"prompt": PROMPT}, headers=headers)
            assert error_of(got, 401)["code"] == "invalid_api_key"
        assert client.get("/health").json() == {"status": "ok"}
        error_of(client.get("/nowhere"), 404)
        error_of(client.delete(PATH), 405)


# --- the end ------------------------------------------------------------------------------------


def test_told_to_end_it_takes_no_more_and_finishes_what_it_has_begun(tmp_path: Path) -> None:
    with serving(tmp_path / "home", "drain_s=120") as server, server.client() as client:
        events: list[Told] = []
        begun = threading.Event()

        def read() -> None:
            with client.stream("POST", PATH, json={"prompt": PROMPT, "max_rounds": 2}) as response:
                for event in told(response):
                    events.append(event)
                    begun.set()

        reading = threading.Thread(target=read)
        reading.start()
        assert begun.wait(60)
        server.signal(signal.SIGTERM)
        with server.client() as other:
            for _ in range(100):
                if (got := other.get("/ready")).status_code == 503:
                    break
                time.sleep(0.05)
            assert got.json() == {"status": "ending"}
            refused = other.post(PATH, json={"prompt": PROMPT})
            assert error_of(refused, 503)["code"] == "ending"
            assert "retry-after" in refused.headers
        reading.join(120)
        assert events[-1].name in ("stop", "failed") and "reason" not in events[-1].data
        assert server.wait() == 0


@pytest.mark.slow
def test_killed_it_has_lost_no_picture_that_was_told_and_goes_on_from_there(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    with serving(home) as server, server.client() as client:
        body = {"prompt": PROMPT, "max_rounds": 3, "inspect_sketch": "always"}
        seen: list[Told] = []
        with client.stream("POST", PATH, json=body) as response:
            for event in told(response):
                seen.append(event)
                if event.name == "sketch":
                    server.signal(signal.SIGKILL)
                    break
        assert server.wait() == -signal.SIGKILL
    id, sketch = seen[0].data["trajectory"], seen[-1].data
    with serving(home) as server, server.client() as client:
        found = client.get(f"{PATH}/{id}").json()
        assert (found["status"], found["reason"]) == ("failed", "interrupted")
        assert found["steps"][sketch["index"]] == sketch["step"]
        got = client.get(sketch["step"]["image"])
        assert got.status_code == 200 and images.decode(got.content).shape == (48, 48, 3)
        end = kept(fork(client, id, at=sketch["index"] + 1))
        assert end[-1].name in ("stop", "failed")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
