import asyncio
import json

import numpy as np
import pytest
from serving import serve
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from eval.__main__ import main as staged_eval
from eval.wise.prompts import FILES, load_prompts
from eval.wise.versions import NUM_PROMPTS, VERSIONS
from staged.backends.lmm.attempts import CallAttempt
from staged.backends.lmm.kept import kept_answers
from staged.images import encode_png
from staged.jobs.budget import BudgetError
from staged.jobs.rank import Rank

NAMES = {"culture": "Cultural knowledge", "time": "time", "space": "Space", "biology": "Biology",
         "physics": "Physical Knowledge", "chemistry": "Chemistry"}  # fmt: skip


def write_prompts(folder, version):
    records = [
        {"Prompt": f"prompt {i}", "Explanation": f"meaning {i}", "Subcategory": "s",
         "Category": NAMES[VERSIONS[version].category(i)], "prompt_id": i}
        for i in range(1, NUM_PROMPTS + 1)
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    names = FILES[version]
    for part, name in enumerate(names):
        (folder / name).write_text(json.dumps(records[part :: len(names)]))


class Judge:
    """Gives every image the same answer, and some prompts another."""

    def __init__(self, answer, special=None):
        self.answer, self.special, self.bodies = answer, special or {}, []
        route = Route("/v1/chat/completions", self.complete, methods=["POST"])
        self.app = Starlette(routes=[route])

    async def complete(self, request):
        body = await request.json()
        self.bodies.append(body)
        text = json.loads(body["messages"][1]["content"][0]["text"])
        answer = self.special.get(text["PROMPT"], self.answer)
        refusal = "no" if answer is None else None
        content = json.dumps(answer) if answer is not None else None
        message = {"role": "assistant", "content": content, "refusal": refusal}
        return JSONResponse({
            "id": "1", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 0, "total_tokens": 1000},
        })  # fmt: skip


@pytest.fixture
def images(tmp_path):
    """Images of eight prompts; of the others there are none."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in (1, 2, 450, 600, 700, 800, 900, 1000):
        pixels = np.full((8, 8, 3), i % 256, np.uint8)
        (folder / f"{i}.png").write_bytes(encode_png(pixels))
    return folder


def judged(tmp_path, images, version, judge, *more):
    out = tmp_path / "judged.jsonl"
    write_prompts(tmp_path / "data" / f"wise_{version}", version)
    with serve(judge.app) as url:
        code = staged_eval(
            ["judge-wise", str(images), "--version", version, "--prompts", str(tmp_path / "data"),
             "--out", str(out), *more, f"base_url={url}", "api_key_env=null", "model=m",
             "usd_per_million_input_tokens=1000", "concurrency=4"]
        )  # fmt: skip
    return code, out


def test_images_are_judged_and_aggregated_without_paying_twice(tmp_path, images, capsys):
    judge = Judge({"score": 1}, {"prompt 2": None, "prompt 450": {"score": 3}})
    code, out = judged(tmp_path, images, "verified", judge, "max_attempts=2")
    assert code == 0
    printed = capsys.readouterr().out
    assert "unscored: 992, no image" in printed
    assert "m, staged words 1 judged 6 of 1000 images" in printed
    # Eight images, and the answer off the scale was asked for once more.
    assert len(judge.bodies) == 9
    body = judge.bodies[0]
    assert body["temperature"] == 0
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert json.loads(body["messages"][1]["content"][0]["text"])["EXPLANATION"].startswith("mean")

    first = out.read_bytes()
    judged(tmp_path, images, "verified", judge, "max_attempts=2")
    assert out.read_bytes() == first
    assert len(judge.bodies) == 9

    result = tmp_path / "wise.json"
    arguments = ["wise", "--judgements", str(out), "--version", "verified", "--out", str(result)]
    assert staged_eval(arguments) == 1
    data = json.loads(result.read_text())
    assert (data["n"], data["unscored"]) == (6, 994)
    assert data["variant"]["judge"] == "m, staged words 1"
    assert data["provenance"]["unscored"] == {
        "invalid_output": 1, "no image": 992, "refusal": 1,
    }  # fmt: skip


def test_the_legacy_judge_gives_three_aspects(tmp_path, images):
    judge = Judge({"consistency": 2, "realism": 1, "aesthetic_quality": 0})
    _, out = judged(tmp_path, images, "legacy", judge)
    line = json.loads(out.read_text().splitlines()[0])
    assert (line["consistency"], line["realism"], line["aesthetic_quality"]) == (2, 1, 0)
    result = tmp_path / "wise.json"
    staged_eval(["wise", "--judgements", str(out), "--version", "legacy", "--out", str(result)])
    assert json.loads(result.read_text())["categories"]["culture"] == pytest.approx(0.8)


def test_a_budget_stops_and_more_of_it_goes_on(tmp_path, images, capsys):
    judge = Judge({"score": 1})
    code, out = judged(tmp_path, images, "verified", judge, "--budget-usd", "9", "concurrency=1")
    assert code == 3
    assert "raise --budget-usd" in capsys.readouterr().out
    assert not out.exists()
    asked = len(judge.bodies)
    assert 3 <= asked < 8
    code, out = judged(tmp_path, images, "verified", judge, "--budget-usd", "100")
    assert code == 0
    assert len(judge.bodies) == 8


def test_an_account_that_is_used_up_stops_judging_and_keeps_what_was_answered(tmp_path, images):
    judge = Judge({"score": 1})
    complete = judge.complete

    async def ending(request):
        answer = await complete(request)
        if len(judge.bodies) > 3:
            return JSONResponse({"error": {"message": "pay first", "code": 402}})
        return answer

    judge.app = Starlette(routes=[Route("/v1/chat/completions", ending, methods=["POST"])])
    with pytest.raises(ValueError, match="402: pay first"):
        judged(tmp_path, images, "verified", judge)
    assert 4 <= len(judge.bodies) < 8  # those in flight
    better = Judge({"score": 1})
    code, _ = judged(tmp_path, images, "verified", better)
    assert code == 0 and len(better.bodies) == 8 - 3


def test_a_broken_image_is_unscored(tmp_path, images):
    (images / "1.png").write_bytes(b"no image")
    _, out = judged(tmp_path, images, "verified", Judge({"score": 1}))
    line = json.loads(out.read_text().splitlines()[0])
    assert (line["score"], line["reason"]) == (None, "broken image")


def test_prompts_of_the_other_version_are_noticed(tmp_path):
    write_prompts(tmp_path, "legacy")
    assert len(load_prompts(tmp_path, VERSIONS["legacy"])) == NUM_PROMPTS
    with pytest.raises(ValueError, match=r"merge\.json is missing"):
        load_prompts(tmp_path, VERSIONS["verified"])
    data = [r for name in FILES["legacy"] for r in json.loads((tmp_path / name).read_text())]
    (tmp_path / "merge.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="files of the other one"):
        load_prompts(tmp_path, VERSIONS["verified"])


def test_what_failed_on_the_way_is_asked_again_by_the_next_run_and_answers_are_not(tmp_path):
    out = tmp_path / "judged"

    async def keep(log, key, attempt):
        async with log.claim(key):
            log.admit("p")
            await log.record(key, "p", attempt)

    with kept_answers(out, usd=None) as log:
        asyncio.run(keep(log, "a", CallAttempt(outcome="ok", text="{}", usd=1.0)))
        asyncio.run(keep(log, "b", CallAttempt(outcome="connection", text="", usd=0.0)))
        asyncio.run(keep(log, "c", CallAttempt(outcome="refusal", text="", usd=0.5)))
        assert [len(log.attempts(key)) for key in "abcd"] == [1, 1, 1, 0]
    # Another process has the answers, and the budget, in common with this one.
    with kept_answers(out, usd=1.5, rank=Rank(number=1, world_size=2)) as log:
        assert [len(log.attempts(key)) for key in "abcd"] == [1, 0, 1, 0]
        with pytest.raises(BudgetError, match=r"1\.5 of 1\.5"):
            log.admit("p")
    out.with_name("old.attempts").write_text("{}\n")
    with pytest.raises(ValueError, match="an older version"), kept_answers(tmp_path / "old", usd=1):
        pass
