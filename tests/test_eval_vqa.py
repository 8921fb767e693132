"""First-token probabilities: of a model in this process, and of a server."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from serving import serve
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from vlm import WORDS, save_tiny, save_tiny_qwen

from eval.vqa.local import LocalAnswerer
from eval.vqa.question import VqaQuestion, spellings
from eval.vqa.server import ServerAnswerer, read_first_token
from staged.backends.lmm.attempts import MemoryLog
from staged.backends.lmm.kept import kept_answers
from staged.backends.lmm.request import FirstToken
from staged.backends.lmm.settings import LmmSettings
from staged.images import encode_png
from staged.jobs.budget import BudgetError


class Server:
    """Names the given tokens for every question, and keeps what it was asked."""

    def __init__(self, logprobs, **choice):
        self.logprobs, self.choice, self.bodies = logprobs, choice, []
        route = Route("/v1/chat/completions", self.complete, methods=["POST"])
        self.app = Starlette(routes=[route])

    async def complete(self, request):
        self.bodies.append(await request.json())
        top = [{"token": t, "logprob": p, "bytes": None} for t, p in self.logprobs]
        content = [{**top[0], "top_logprobs": top}] if top else None
        message = {"role": "assistant", "content": "x", "refusal": None}
        choice = {"index": 0, "finish_reason": "length", "message": message,
                  "logprobs": {"content": content}, **self.choice}  # fmt: skip
        usage = {"prompt_tokens": 1000, "completion_tokens": 1, "total_tokens": 1001}
        return JSONResponse({"id": "1", "object": "chat.completion", "created": 0, "model": "m",
                             "choices": [choice], "usage": usage})  # fmt: skip


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(encode_png(np.full((12, 20, 3), 90, np.uint8)))
    return path


def ask(server, questions, log=None, top_logprobs=20, **settings):
    answers = {}
    with serve(server.app) as url:
        made = LmmSettings(model="m", base_url=url, api_key_env=None, backoff_s=0.001, **settings)
        answerer = ServerAnswerer(
            made, log or MemoryLog(), purpose="test", top_logprobs=top_logprobs
        )
        answerer.answer(questions, answers.__setitem__)
    return answers


def test_answers_count_in_the_forms_of_the_reference():
    assert set(spellings("Yes")) == {"Yes", "yes", " yes", " Yes"}
    assert set(spellings("four")) == {"four", "Four", " four", " Four", "4", " 4"}
    assert set(spellings("4")) == set(spellings("four"))
    with pytest.raises(ValueError, match="expected a word"):
        spellings(" ")


def test_a_model_in_this_process_gives_the_softmax_of_its_logits(tmp_path, image):
    answerer = LocalAnswerer.load(save_tiny(tmp_path / "model"))
    accepted = spellings("four")
    answers = {}
    questions = [
        VqaQuestion(image=image, text="yes no", accepted=accepted),
        VqaQuestion(image=image, text="no four", accepted=accepted),
    ]
    answerer.answer(questions, answers.__setitem__)

    pixels = Image.open(image).convert("RGB")
    inputs = answerer.processor(
        images=pixels, text="user: <image> yes no assistant:", return_tensors="pt"
    )
    with torch.no_grad():
        logits = answerer.model(**inputs).logits[0, -1]
    probabilities = logits.softmax(-1)
    expected = sum(float(probabilities[WORDS.index(word)]) for word in ("four", "Four", "4"))
    assert 0.01 < expected < 0.99
    assert answers[0].probability == pytest.approx(expected, rel=1e-5)
    assert answers[1].probability != pytest.approx(expected, rel=1e-3)
    # A space before a word changes no token here, and no token counts twice.
    assert answerer.accepted_tokens(accepted) == [WORDS.index(w) for w in ("four", "Four", "4")]


def test_the_judge_of_geneval_2_answers_without_its_part_for_videos(tmp_path, image):
    answerer = LocalAnswerer.load(save_tiny_qwen(tmp_path / "model"))
    words = {}
    for word in ("four", "no"):
        question = VqaQuestion(image=image, text="yes no", accepted=(word,))
        answerer.answer([question], lambda _, answer, word=word: words.update({word: answer}))
    pixels = Image.open(image).convert("RGB")
    text = "user: <|vision_start|><|image_pad|><|vision_end|> yes no assistant:"
    inputs = answerer.processor(images=pixels, text=[text], return_tensors="pt")
    # An image is as many tokens as it has blocks of 2 x 2 patches of 4 x 4 pixels.
    blocks = inputs["image_grid_thw"].prod() // 4
    assert (inputs["input_ids"] == answerer.model.config.image_token_id).sum() == blocks > 1
    with torch.no_grad():
        probabilities = answerer.model(**inputs).logits[0, -1].softmax(-1)
    for word, answer in words.items():
        expected = float(probabilities[WORDS.index(word)])
        assert answer.probability == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("save", "token"), [(save_tiny, "<image>"), (save_tiny_qwen, "<|vision_end|>")]
)
def test_a_question_that_spells_a_token_of_the_chat_is_not_asked(tmp_path, image, save, token):
    """It would have been one more image, or the end of the user's turn."""
    answerer, answers = LocalAnswerer.load(save(tmp_path / "model")), {}
    texts = [f"yes {token} no", "yes no"]
    questions = [VqaQuestion(image=image, text=text, accepted=("yes",)) for text in texts]
    answerer.answer(questions, answers.__setitem__)
    assert (answers[0].probability, answers[0].reason) == (None, "control token")
    assert token in answers[0].detail
    assert answers[1].probability is not None


def test_an_image_that_does_not_decode_has_no_answer(tmp_path, image):
    image.write_bytes(b"no image")
    question = VqaQuestion(image=image, text="yes", accepted=("yes",))
    local, remote = {}, ask(Server([("Yes", -0.1)]), [question])
    LocalAnswerer.load(save_tiny(tmp_path / "model")).answer([question], local.__setitem__)
    for answers in (local, remote):
        assert (answers[0].probability, answers[0].reason) == (None, "broken image")


def test_a_server_is_asked_for_one_token_in_plain_text(image):
    server = Server([("Yes", math.log(0.6)), ("No", math.log(0.3))])
    answers = ask(server, [VqaQuestion(image=image, text="Is it?", accepted=spellings("Yes"))])
    assert answers[0].probability == pytest.approx(0.6)
    body = server.bodies[0]
    assert (body["max_completion_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, 20)
    assert "response_format" not in body
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url", "text"]


def test_what_a_server_does_not_name_is_bounded():
    log_probs = (("Yes", math.log(0.5)), (" yes", math.log(0.2)), ("No", math.log(0.1)))
    answer = read_first_token(FirstToken(log_probs=log_probs), ("Yes", " Yes", "yes", " yes"))
    assert answer.probability == pytest.approx(0.7)
    # Two forms are not named: no more than 0.1 each, and together no more than the 0.2 left.
    assert answer.at_most == pytest.approx(0.9)
    answer = read_first_token(FirstToken(log_probs=(("No", math.log(0.99)),)), ("Yes", "yes"))
    assert (answer.probability, answer.at_most) == (0.0, pytest.approx(0.01))


@pytest.mark.parametrize(
    ("server", "reason", "asked"),
    [
        (Server([]), "bad_request", 1),
        (Server([("Yes", 0.0), ("No", 0.0)]), "invalid_output", 2),
        (Server([("Yes", -0.1)], finish_reason="content_filter"), "content_filter", 1),
    ],
)
def test_a_server_without_sound_probabilities_gives_no_score(image, server, reason, asked):
    question = VqaQuestion(image=image, text="Is it?", accepted=("Yes",))
    answers = ask(server, [question], max_attempts=2)
    assert (answers[0].probability, answers[0].reason) == (None, reason)
    assert len(server.bodies) == asked


def test_no_answer_is_paid_for_twice_and_a_budget_stops(tmp_path, image):
    server = Server([("Yes", -0.1)])
    questions = [VqaQuestion(image=image, text=f"{i}?", accepted=("Yes",)) for i in range(4)]
    # Each costs a dollar, and is counted with more before: the third may pass the budget.
    price = {"usd_per_million_input_tokens": 1000.0, "concurrency": 1, "tokens_per_image": 0}
    with kept_answers(tmp_path / "log", usd=3.0) as log, pytest.raises(BudgetError):
        ask(server, questions, log, **price)
    assert len(server.bodies) == 2
    with kept_answers(tmp_path / "log", usd=None) as log:
        assert sorted(ask(server, questions, log, **price)) == [0, 1, 2, 3]
    assert len(server.bodies) == 4


def test_a_wrong_number_of_tokens_is_refused():
    with pytest.raises(ValueError, match="top_logprobs is 0"):
        ServerAnswerer(LmmSettings(model="m"), MemoryLog(), purpose="test", top_logprobs=0)
