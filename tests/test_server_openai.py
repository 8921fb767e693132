"""OpenAI's own client draws, edits and asks, at a real server."""

import base64
import io
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import tiny
from server_process import ANN, PROMPT, ServerProcess, serving

from staged import images
from staged.data_urls import to_data_url
from staged.images import encode_png
from staged.shapes.world.render import render
from staged.shapes.world.scene import Scene, Shape

MODEL = "miniature:staged"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    out = tmp_path_factory.mktemp("openai") / "home"
    with serving(out, "preview_every=1", "mode=one-shot", keys=f"ann:{ANN}") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key=ANN, max_retries=0, timeout=200
    ) as client:
        yield client


def decoded(text: str | None) -> Any:
    assert text is not None
    return images.decode(base64.b64decode(text))


PICTURE = encode_png(tiny.picture(3, 48, 48))


def test_it_names_its_model(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-image-1' here"):
        client.images.generate(model="gpt-image-1", prompt=PROMPT)


# --- drawing ------------------------------------------------------------------------------------


def test_a_prompt_is_drawn_as_often_as_asked_each_with_its_seed(client: openai.OpenAI) -> None:
    got = client.images.generate(
        model=MODEL,
        prompt="Two hearts!",
        n=2,
        size="48x48",
        response_format="b64_json",
        quality="high",
        user="me",
        extra_body={"seed": 5},
    )
    assert got.data is not None and len(got.data) == 2 and got.size == "48x48"
    assert [decoded(image.b64_json).shape for image in got.data] == [(48, 48, 3)] * 2
    assert [image.revised_prompt for image in got.data] == ["a photo of two hearts"] * 2
    extra = [image.model_extra or {} for image in got.data]
    assert [more["seed"] for more in extra] == [5, 6] and all(more["complete"] for more in extra)
    [again] = client.images.generate(prompt="two hearts", extra_body={"seed": 6}).data or []
    first, second, same = (decoded(image.b64_json) for image in (*got.data, again))
    assert (same == second).all() and (first != second).any()


def test_a_picture_may_be_an_address_that_needs_no_key(client: openai.OpenAI) -> None:
    [image] = client.images.generate(prompt="a star", response_format="url").data or []
    assert image.b64_json is None and image.url is not None
    assert images.decode(httpx.get(image.url).content).shape == (48, 48, 3)


def test_it_may_be_drawn_in_stages(server: ServerProcess, client: openai.OpenAI) -> None:
    [image] = client.images.generate(prompt=PROMPT, extra_body={"mode": "staged"}).data or []
    id = (image.model_extra or {})["trajectory"]
    with server.client(ANN) as http:
        found = http.get(f"/v1/trajectories/{id}").json()
    assert found["kind"] == "image" and found["steps"][0]["step"] == "plan"


def test_partial_images_come_before_the_picture(client: openai.OpenAI) -> None:
    asked = {"seed": 1, "num_flow_steps": 100}
    stream = client.images.generate(
        prompt="a star", stream=True, partial_images=1, extra_body=asked
    )
    events = list(stream)
    assert [event.type for event in events] == [
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    [plain] = client.images.generate(prompt="a star", extra_body=asked).data or []
    assert (decoded(events[-1].b64_json) == decoded(plain.b64_json)).all()
    assert decoded(events[0].b64_json).shape == (48, 48, 3)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prompt": "a photo of a dog"}, "it knows the shapes"),
        ({"prompt": "a star", "n": 9}, "n is 9; the server's limit is 8"),
        ({"prompt": "a star", "n": 0}, "n"),
        ({"prompt": "a star", "size": "1024x1024"}, "1024"),
        ({"prompt": "a star", "size": "large"}, "size"),
        ({"prompt": "a star", "output_format": "webp"}, "output_format"),
        ({"prompt": "a star", "background": "transparent"}, "background"),
        ({"prompt": "a star", "n": 2, "stream": True}, "give n 1"),
        ({"prompt": "a star", "extra_body": {"sed": 1}}, "sed"),
        ({"prompt": "a star", "extra_body": {"mode": "answer"}}, "/v1/chat/completions"),
    ],
)
def test_what_cannot_be_drawn_is_a_bad_request(
    client: openai.OpenAI, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**asked)
    assert message in caught.value.message


def test_a_wrong_key_is_told(server: ServerProcess) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
    with client, pytest.raises(openai.AuthenticationError, match="the API key is unknown"):
        client.images.generate(prompt="a star")


def test_what_is_not_done_by_its_deadline_is_not_asked_again(server: ServerProcess) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=ANN, max_retries=5) as client:
        began = time.monotonic()
        with pytest.raises(openai.APIStatusError) as caught:
            client.images.generate(prompt="a star", extra_body={"deadline_s": 0.001})
    assert caught.value.status_code == 504 and time.monotonic() - began < 60
    assert caught.value.code == "deadline"


def test_who_hangs_up_does_not_keep_the_model_busy(
    server: ServerProcess, client: openai.OpenAI
) -> None:
    body = {"num_flow_steps": 290}
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).images.generate(prompt="a ring", n=4, extra_body=body)
    with server.client(ANN) as http:
        for _ in range(600):
            listed = http.get("/v1/trajectories", params={"words": "a ring"}).json()["data"]
            if listed and all(found["status"] != "running" for found in listed):
                break
            time.sleep(0.1)
    assert {found["reason"] for found in listed} == {"cancelled"}


# --- editing ------------------------------------------------------------------------------------


def test_a_picture_is_edited(client: openai.OpenAI) -> None:
    [image] = (
        client.images.edit(
            image=("star.png", PICTURE, "image/png"),
            prompt="Change the red star to blue.",
            extra_body={"seed": 3},
        ).data
        or []
    )
    assert decoded(image.b64_json).shape == (48, 48, 3)
    assert image.revised_prompt == "change the red star to blue"
    several = client.images.edit(
        image=[("a.png", PICTURE), ("b.png", PICTURE)], prompt="remove the red star", n=1
    )
    assert several.data and decoded(several.data[0].b64_json).shape == (48, 48, 3)


def test_an_edit_streams_too(client: openai.OpenAI) -> None:
    stream = client.images.edit(
        image=io.BytesIO(PICTURE), prompt="remove the red star", stream=True, partial_images=1
    )
    assert [event.type for event in stream][-1] == "image_edit.completed"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"image": ("a.png", b"nothing")}, "image[0]"),
        ({"image": ("a.png", PICTURE), "mask": ("m.png", PICTURE)}, "mask"),
        ({"image": ("a.png", PICTURE), "prompt": "paint it like Monet"}, "or, of an image"),
        ({"image": [("a.png", PICTURE)] * 5}, "5 images; the server's limit is 4"),
    ],
)
def test_an_edit_that_cannot_be_is_a_bad_request(
    client: openai.OpenAI, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(**{"prompt": "remove the red star", **asked})
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=x", b"--x\r\nnonsense"),
        ("multipart/form-data", b"--x"),
        ("multipart/form-data; boundary=x", b""),
        ("application/json", b"{}"),
        ("text/plain", b"hello"),
    ],
)
def test_a_form_that_is_none_is_a_bad_request(
    server: ServerProcess, kind: str, body: bytes
) -> None:
    with server.client(ANN) as http:
        got = http.post("/v1/images/edits", content=body, headers={"Content-Type": kind})
    assert got.status_code == 400 and set(got.json()["error"]) == {
        "message", "type", "param", "code",
    }  # fmt: skip


# --- asking -------------------------------------------------------------------------------------


def ask(client: openai.OpenAI, *parts: dict[str, Any], **more: Any) -> Any:
    messages = [*more.pop("before", ()), {"role": "user", "content": list(parts)}]
    return client.chat.completions.create(model=MODEL, messages=messages, **more)  # type: ignore[arg-type]


SCENE = Scene(shapes=(Shape(kind="star", color="red", size="large", x=24, y=24),))
STAR = {"type": "image_url", "image_url": {"url": to_data_url(encode_png(render(SCENE)))}}
QUESTION = {"type": "text", "text": "Describe the picture."}


def test_a_question_about_a_picture_is_answered(
    server: ServerProcess, client: openai.OpenAI
) -> None:
    got = ask(client, STAR, QUESTION)
    [choice] = got.choices
    assert choice.finish_reason == "stop" and choice.message.content and got.model == MODEL
    assert got.usage.completion_tokens > 0 and got.usage.prompt_tokens > 0
    with server.client(ANN) as http:
        found = http.get(f"/v1/trajectories/{got.id}").json()
    assert [step["step"] for step in found["steps"]] == ["answer"] and found["kind"] == "chat"
    pieces = list(ask(client, STAR, QUESTION, stream=True))
    assert "".join(p.choices[0].delta.content or "" for p in pieces) == choice.message.content
    assert pieces[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("parts", "more", "message"),
    [
        ([QUESTION], {}, "a question needs an image"),
        ([STAR, {"type": "text", "text": "Who painted it?"}], {}, "it knows one question"),
        ([STAR], {}, "prompt"),
        (
            [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}, QUESTION],
            {},
            "nothing is fetched from elsewhere",
        ),
        ([STAR, QUESTION], {"n": 2}, "n"),
        ([STAR, QUESTION], {"tools": [{"type": "function"}]}, "tools"),
        ([STAR, QUESTION], {"before": [{"role": "user", "content": "hi"}]}, "one question"),
        ([STAR, QUESTION], {"before": [{"role": "assistant", "content": "hi"}]}, "role"),
        ([{"type": "audio"}], {}, "type"),
    ],
)
def test_a_question_that_cannot_be_answered_is_a_bad_request(
    client: openai.OpenAI, parts: list[dict[str, Any]], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, *parts, **more)
    assert message in caught.value.message


def test_an_answer_that_is_cut_off_is_told(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="truncated"):
        ask(client, STAR, QUESTION, max_tokens=1)
