"""GenEval 2: prompts, Soft-TIFA by hand, and the whole way with an exact judge."""

import base64
import json
import math
import re

import pytest
from serving import serve
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from vlm import save_tiny

from eval.__main__ import main as staged_eval
from eval.geneval.detector import MiniatureDetector
from eval.geneval2.asking import ask_about
from eval.geneval2.prompts import load_prompts
from eval.geneval2.summary import geometric_mean
from eval.pictures import read_pictures
from eval.results import BenchmarkResult
from eval.vqa.question import VqaAnswer
from staged import images
from staged.jobs.rank import Rank
from staged.shapes.world.render import render
from staged.shapes.world.scene import Scene, Shape

PROMPTS = [
    {"prompt": "two red stars", "atom_count": 3, "skills": ["count", "attribute", "object"],
     "vqa_list": [["How many stars are in the image?", "two"], ["Are the stars red?", "Yes"],
                  ["Are there any stars in the image?", "Yes"]]},
    {"prompt": "a blue ring", "atom_count": 3, "skills": ["count", "attribute", "object"],
     "vqa_list": [["How many rings are in the image?", "one"], ["Is the ring blue?", "Yes"],
                  ["Are there any rings in the image?", "Yes"]]},
    {"prompt": "three hearts", "atom_count": 4, "skills": ["count", "object"],
     "vqa_list": [["How many hearts are in the image?", "three"],
                  ["Are there any hearts in the image?", "Yes"]]},
]  # fmt: skip


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "geneval2_data.jsonl"
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in PROMPTS))
    return path


def aggregate(tmp_path, prompts, lines, *more):
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "result.json"
    code = staged_eval(["geneval2", "--answers", str(answers), "--prompts", str(prompts),
                        "--out", str(out), *more])  # fmt: skip
    return code, BenchmarkResult.read(out)


def test_means_are_those_computed_by_hand(tmp_path, prompts):
    lines = [
        {"prompt_id": 0, "probabilities": [0.5, 0.25, 1]},
        {"prompt_id": 1, "probabilities": [0.9, 0.9, 0.9]},
        {"prompt_id": 2, "probabilities": [0, 1]},
    ]
    code, result = aggregate(tmp_path, prompts, lines, "--judge", "m")
    assert code == 0
    # Geometric: 0.125^(1/3) = 0.5, 0.9, and 0 for one impossible answer.
    assert result.estimates["atomicity 3"].value == pytest.approx(0.7)
    assert result.estimates["atomicity 4"].value == 0
    assert result.overall.value == pytest.approx((0.5 + 0.9 + 0) / 3)
    # Arithmetic: 1.75/3, 0.9, 0.5, each prompt once however many questions it has.
    assert result.also["arithmetic mean"].value == pytest.approx((1.75 / 3 + 0.9 + 0.5) / 3)
    # Of a skill over all its questions.
    assert result.also["skill count"].value == pytest.approx((0.5 + 0.9 + 0) / 3)
    assert result.also["skill attribute"].value == pytest.approx((0.25 + 0.9) / 2)
    assert result.also["skill object"].value == pytest.approx((1 + 0.9 + 1) / 3)
    assert result.variant["judge"] == "m"


def test_the_references_list_gives_the_same(tmp_path, prompts):
    scores = [[0.5, 0.25, 1], [0.9, 0.9, 0.9], [0, 1]]
    lines = [{"prompt_id": i, "probabilities": row} for i, row in enumerate(scores)]
    _, ours = aggregate(tmp_path, prompts, lines)
    reference, out = tmp_path / "score_lists.json", tmp_path / "reference.json"
    reference.write_text(json.dumps(scores))
    staged_eval(["geneval2", "--answers", str(reference), "--prompts", str(prompts),
                 "--out", str(out)])  # fmt: skip
    assert BenchmarkResult.read(out).estimates == ours.estimates
    assert BenchmarkResult.read(out).also == ours.also


def test_a_long_product_does_not_underflow():
    assert geometric_mean([1e-200] * 10) == pytest.approx(1e-200)
    assert geometric_mean([1.0] * 7) == 1.0


def test_what_is_not_answered_is_unscored_and_never_zero(tmp_path, prompts, capsys):
    lines = [
        {"prompt_id": 0, "image_id": 0, "probabilities": [0.5, 0.5, 0.5]},
        {"prompt_id": 0, "image_id": 1, "probabilities": [None, 2, "x"],
         "reasons": ["refusal", None, None]},
        {"prompt_id": 1, "image_id": 1, "probabilities": [0.25, 0.25, 0.25]},
    ]  # fmt: skip
    code, result = aggregate(tmp_path, prompts, lines)
    assert code == 1
    # Two images each: one of prompt 0 and of prompt 1 and both of prompt 2 have no score.
    assert (result.overall.n, result.overall.unscored) == (2, 4)
    assert result.estimates["atomicity 3"].value == pytest.approx(0.375)
    # A part without any score leaves no overall score.
    assert result.overall.value is None
    assert result.provenance["unscored"] == {
        "no answers": 3 + 2 + 2, "probability unparsed": 2, "refusal": 1,
    }  # fmt: skip
    assert "4 samples are unscored" in capsys.readouterr().err
    assert aggregate(tmp_path, prompts, lines, "--allow-unscored")[0] == 0


def test_a_bound_from_a_server_is_carried_to_the_headline(tmp_path, prompts):
    lines = [
        {"prompt_id": i, "probabilities": [0.0] + [1.0] * (len(p["vqa_list"]) - 1),
         "at_most": [0.001] + [1.0] * (len(p["vqa_list"]) - 1)}
        for i, p in enumerate(PROMPTS)
    ]  # fmt: skip
    _, result = aggregate(tmp_path, prompts, lines)
    assert result.overall.value == 0
    assert result.also["geometric mean, at most"].value == pytest.approx(
        (0.1 + 0.1 + math.sqrt(0.001)) / 3
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt_id": 3, "probabilities": []}, "expected 0 to 2"),
        ({"prompt_id": 0, "probabilities": [1.0]}, "one for each of the 3 questions"),
        ({"prompt_id": 0, "prompt": "a cat", "probabilities": [1, 1, 1]}, "not prompt 0"),
        ({"prompt_id": 1, "probabilities": [1, 1, 1]}, "stands there already"),
        ({"prompt_id": 0, "probabilities": [1, 1, 1], "judge": "b"}, "2 models: a; b"),
    ],
)
def test_answers_to_other_questions_are_refused(tmp_path, prompts, line, message):
    good = {"prompt_id": 1, "probabilities": [1, 1, 1], "judge": "a"}
    with pytest.raises(ValueError, match=message):
        aggregate(tmp_path, prompts, [good, line])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skills": ["count"]}, "3 questions and 1 skills"),
        ({"vqa_list": [["How many?", "two", "x"]] * 3}, r"expected \[question, answer\]"),
        ({"vqa_list": [["How many?", " "]] * 3}, "an empty question"),
        ({"atom_count": 0}, "expected 1 or more"),
        ({"atom_count": "3"}, "expected int"),
    ],
)
def test_a_line_that_is_no_prompt_is_refused(tmp_path, prompts, change, message):
    prompts.write_text(json.dumps({**PROMPTS[0], **change}))
    with pytest.raises(ValueError, match=message):
        load_prompts(prompts)
    prompts.unlink()
    with pytest.raises(ValueError, match="fetch geneval2_data"):
        load_prompts(prompts)


class ExactJudge:
    """Answers questions about drawings of the miniature world; nine times in ten as it sees."""

    def __init__(self):
        self.num_asked = 0
        route = Route("/v1/chat/completions", self.complete, methods=["POST"])
        self.app = Starlette(routes=[route])

    async def complete(self, request):
        self.num_asked += 1
        image, text = (await request.json())["messages"][0]["content"]
        pixels = images.decode(base64.b64decode(image["image_url"]["url"].partition(",")[2]))
        said = self.say(text["text"], MiniatureDetector().detect(pixels))
        top = [{"token": said, "logprob": math.log(0.9), "bytes": None},
               {"token": "maybe", "logprob": math.log(0.1), "bytes": None}]  # fmt: skip
        message = {"role": "assistant", "content": said, "refusal": None}
        logprobs = {"content": [{**top[0], "top_logprobs": top}]}
        choice = {"index": 0, "finish_reason": "length", "message": message, "logprobs": logprobs}
        return JSONResponse({"id": "1", "object": "chat.completion", "created": 0, "model": "m",
                             "choices": [choice]})  # fmt: skip

    @staticmethod
    def say(text, found):
        question, _, instruction = text.partition("?")
        assert instruction == " Answer in one word."
        if match := re.fullmatch(r"How many (\w+)s are in the image", question):
            return str(sum(d.class_name == match[1] for d in found))
        if match := re.fullmatch(r"Are there any (\w+)s in the image", question):
            return "Yes" if any(d.class_name == match[1] for d in found) else "No"
        match = re.fullmatch(r"(?:Is|Are) the (\w+?)s? (\w+)", question)
        same = [d.color == match[2] for d in found if d.class_name == match[1]]
        return "Yes" if same and all(same) else "No"


def draw(tmp_path, *scenes):
    """Write an image of each prompt and a list of them."""
    listed = []
    for index, looks in enumerate(scenes):
        shapes = tuple(
            Shape(kind=kind, color=color, size="large", x=12 + 24 * i, y=24)
            for i, (kind, color) in enumerate(looks)
        )
        name = f"{index}.png"
        scene = Scene(shapes=shapes, background=(170, 170, 170))
        (tmp_path / name).write_bytes(images.encode_png(render(scene)))
        listed.append({"image": name, "prompt": PROMPTS[index]["prompt"]})
    path = tmp_path / "images.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in listed))
    return path


def test_images_are_judged_aggregated_and_not_asked_about_twice(tmp_path, prompts, capsys):
    listed = draw(tmp_path, [("star", "red")] * 2, [("ring", "green")], [("heart", "red")] * 2)
    answers, out = tmp_path / "answers.jsonl", tmp_path / "result.json"
    judge = ExactJudge()

    def ask():
        with serve(judge.app) as url:
            return staged_eval(
                ["answer-geneval2", str(listed), "--prompts", str(prompts), "--out", str(answers),
                 "--through", "server", f"base_url={url}", "model=exact", "concurrency=2"]
            )  # fmt: skip

    assert ask() == 0
    assert "3 images now, 0 were there" in capsys.readouterr().out
    first = answers.read_bytes()
    lines = [json.loads(line) for line in first.splitlines()]
    assert [line["prompt_id"] for line in lines] == [0, 1, 2]
    assert lines[0]["probabilities"] == pytest.approx([0.9, 0.9, 0.9])
    assert lines[1]["probabilities"] == pytest.approx([0.9, 0, 0.9])
    assert lines[2]["probabilities"] == pytest.approx([0, 0.9])

    # Half a line of a killed process is asked about again, from the log of answers.
    answers.write_bytes(first[:-40])
    assert ask() == 0
    assert "1 images now, 2 were there" in capsys.readouterr().out
    assert answers.read_bytes() == first
    assert judge.num_asked == 8

    arguments = ["geneval2", "--answers", str(answers), "--prompts", str(prompts)]
    assert staged_eval([*arguments, "--out", str(out)]) == 0
    result = BenchmarkResult.read(out)
    assert result.overall.value == pytest.approx(0.9 / 3)
    assert result.also["skill object"].value == pytest.approx(0.9)
    assert result.variant["judge"] == "exact, first token by text, top 20"


def test_a_model_in_this_process_answers_and_a_missing_image_is_unscored(tmp_path, prompts, capsys):
    listed = draw(tmp_path, [("star", "red")] * 2, [("ring", "green")], [("heart", "red")] * 2)
    (tmp_path / "1.png").unlink()
    model, answers = save_tiny(tmp_path / "model"), tmp_path / "answers.jsonl"
    arguments = ["answer-geneval2", str(listed), "--prompts", str(prompts), "--out", str(answers),
                 "--model", str(model)]  # fmt: skip
    assert staged_eval(arguments) == 0
    assert "unscored: 3 questions, no image" in capsys.readouterr().out
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert all(0 < p < 1 for line in (lines[0], lines[2]) for p in line["probabilities"])
    assert lines[1]["probabilities"] == [None] * 3
    with pytest.raises(ValueError, match="add --through server"):
        staged_eval([*arguments, "model=x"])


class Fixed:
    """Answers by the question's text, the last question first."""

    name = "fixed"

    def __init__(self):
        self.num_asked = 0

    def answer(self, questions, keep):
        self.num_asked += len(questions)
        for index in reversed(range(len(questions))):
            keep(index, VqaAnswer(probability=1 / len(questions[index].text)))


def test_processes_that_share_the_work_leave_the_file_of_one(tmp_path, prompts):
    listed = draw(tmp_path, [("star", "red")], [("ring", "blue")], [("heart", "red")])
    pictures, prompt_file = read_pictures(listed), load_prompts(prompts)
    one, shared = tmp_path / "one.jsonl", tmp_path / "shared.jsonl"
    assert ask_about(pictures, prompt_file, Fixed(), one).new == 3
    # What lies beside and is no part of the answers is not read.
    (tmp_path / "shared.jsonl.0-of-2.attempts").write_text("no line\n")
    for number in (1, 0):
        rank = Rank(number=number, world_size=2)
        filled = ask_about(pictures, prompt_file, Fixed(), shared, rank=rank)
        assert (filled.lines is None) == (number == 1)
    assert shared.read_bytes() == one.read_bytes()
    # One process takes over from two; nothing is asked again.
    shared.unlink()
    again = Fixed()
    assert ask_about(pictures, prompt_file, again, shared).kept == 3
    assert again.num_asked == 0
    assert shared.read_bytes() == one.read_bytes()


def test_images_of_other_prompts_are_refused(tmp_path, prompts):
    listed = draw(tmp_path, [("star", "red")])
    listed.write_text(json.dumps({"image": "0.png", "prompt": "a cat"}))
    with pytest.raises(ValueError, match="not in the prompt file"):
        staged_eval(["answer-geneval2", str(listed), "--prompts", str(prompts), "--out",
                     str(tmp_path / "a"), "--through", "server"])  # fmt: skip


def test_images_are_found_in_every_layout(tmp_path):
    folder = tmp_path / "folder"
    for index, prompt in ((0, "a"), (10, "b")):
        (folder / f"{index:05}" / "samples").mkdir(parents=True)
        (folder / f"{index:05}" / "metadata.jsonl").write_text(json.dumps({"prompt": prompt}))
    for number in (2, 10):
        (folder / "00000" / "samples" / f"{number}.png").write_bytes(b"")
    named = [(p.name, p.prompt, p.path.is_file()) for p in read_pictures(folder)]
    assert named == [
        ("00000/samples/2.png", "a", True),
        ("00000/samples/10.png", "a", True),
        ("00010/samples/00000.png", "b", False),
    ]
    (folder / "0007.jpg").touch()
    numbered = read_pictures(folder, {7: "c", 8: "d"})
    assert [(p.path, p.prompt) for p in numbered] == [
        (folder / "0007.jpg", "c"), (folder / "8.png", "d"),
    ]  # fmt: skip
    (tmp_path / "x").mkdir()
    (tmp_path / "x/1.png").touch()
    mapping = tmp_path / "images.json"
    mapping.write_text(json.dumps({"d": "x/1.png"}))
    assert [(p.path, p.prompt) for p in read_pictures(mapping)] == [(tmp_path / "x/1.png", "d")]
    with pytest.raises(ValueError, match="no folders 00000"):
        read_pictures(tmp_path)
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"image": "gone.png", "prompt": "e"}\n' * 2)
    with pytest.raises(ValueError, match=r"no images, .*gone\.png for one is missing"):
        read_pictures(lines)
    (tmp_path / "1.png").touch()
    lines.write_text('{"image": "1.png", "prompt": "e", "seed": 3}\n' * 2)
    with pytest.raises(ValueError, match="occurs twice"):
        read_pictures(lines)
