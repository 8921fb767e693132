"""The optimiser without a model: what is asked, scored, paired, kept and imported."""

import asyncio
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exploring import Habits
from PIL import Image

from staged import images
from staged.backends.idea2img.painter import LedgerPainter
from staged.jobs.files import write_whole
from staged.jobs.ledger import Ledger
from staged.settings import SettingsError, from_dict
from train.self_reward.asking import (
    WORDINGS,
    TwoScores,
    read_assessment,
    read_judgement,
    read_rewrite,
    write_assessment,
    write_judgement,
)
from train.self_reward.examples import (
    Example,
    keep_picture,
    read_examples,
    write_examples,
    write_swift,
)
from train.self_reward.importers.pick_a_pic import pick_a_pic
from train.self_reward.importers.prompts import beautiful_prompt, diffusiondb_prompts
from train.self_reward.judging import JudgedPrompt, Verdicts, judge_pairs, read_pair
from train.self_reward.lines import _Line
from train.self_reward.preferences import PicturePair, read_pairs, write_pairs
from train.self_reward.rewards import (
    Reward,
    ScoredPair,
    best_of,
    choose,
    choose_answers,
    reward_of,
)
from train.self_reward.rollout import DrawnPrompt, DrawnRewrite
from train.self_reward.settings import SelfRewardSettings


def said(first: int, second: int) -> str:
    return write_judgement(TwoScores(scores=(first, second), reasons=("this", "that")))


def worth(total: float | None, gain: float | None = 0.0) -> Reward:
    return Reward(total=total, alignment_gain=gain, by_rubric={}, num_answers=1)


def test_a_picture_of_an_earlier_model_is_not_taken_for_one_that_could_not_be_drawn(
    tmp_path: Path,
) -> None:
    stale = [tmp_path / f"pictures/dpo1/{number:05d}-000.png" for number in range(3)]
    for path in stale:
        write_whole(path, b"of an earlier model")
    with Ledger(tmp_path / "ledger", fingerprint="f" * 64) as ledger:
        model = Habits(refuses=lambda prompt: "ring" in prompt)
        line = _Line(LedgerPainter(model, ledger), tmp_path, "dpo1", 0, 1, lambda: None)
        records = asyncio.run(line.draw(["a star", "a ring", "one"], ["a star", "a ring", None]))
    assert [record["drawn"] for record in records] == ["a star", "a ring", None]
    assert [path.is_file() for path in stale] == [True, False, False]
    assert stale[0].read_bytes() != b"of an earlier model"


def test_judgements_are_read_as_they_are_written() -> None:
    one = TwoScores(scores=(0, 5), reasons=("no star", "a red star, as asked"))
    assert read_judgement(write_judgement(one)) == one
    assert read_judgement(" first: a\nscore: 3\nSECOND: b score: 4 ") is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "First: a. Score: 6. Second: b. Score: 1.",
        "First: a. Score: 4.",
        "First: a. Score: 4. Second: b. Score: 1. And so on",
        "First: a. Score: 44. Second: b. Score: 1",
        "First: a. Score: 2. Score: 3. Second: b. Score: 1.",
        "Sure! First: a. Score: 1. Second: b. Score: 1",
    ],
)
def test_what_has_another_form_is_no_judgement(text: str) -> None:
    assert read_judgement(text) is None
    assert read_pair(text, swapped=False) is None


def test_assessments_are_the_mean_of_five_criteria() -> None:
    assert read_assessment(write_assessment(4)) == 4.0
    assert read_assessment(
        "Relevance: 5, accuracy 4, objectivity 3, clarity 2, completeness 1."
    ) == pytest.approx(3.0)
    assert read_assessment("relevance 5, accuracy 4") is None
    assert read_assessment(write_assessment(0)) is None


def test_rewrites_are_one_line_without_what_stands_around_them() -> None:
    assert read_rewrite('  "a red star,\n   oil on canvas" ') == "a red star, oil on canvas"
    assert read_rewrite("Prompt: a star") == "a star"
    assert read_rewrite(" \n ") is None and read_rewrite("a" * 5000) is None


@pytest.mark.parametrize("name", WORDINGS)
def test_questions_keep_what_they_are_about_whatever_words_it_has(name: str) -> None:
    wording, odd = WORDINGS[name], "a {answer} and {prompt}"
    assert odd in wording.rewrite(odd)
    assert odd in wording.judge("aesthetic", odd)
    question = wording.judge("alignment", "a star")
    assert question in wording.assess(question, "fine") and "fine" in wording.assess(
        question, "fine"
    )


def test_orders_cancel_a_liking_for_one_place() -> None:
    """A judge that gives the first picture 5 and the second 1, whichever they are."""
    pairs = [read_pair(said(5, 1), swapped) for swapped in (False, True)]
    assert pairs == [ScoredPair(original=5, candidate=1), ScoredPair(original=1, candidate=5)]
    found = reward_of({"alignment": [one for one in pairs if one]})
    assert found.total == 3.0 and found.alignment_gain == 0.0


def test_a_reward_is_the_sum_of_means_and_unscored_is_not_zero() -> None:
    high, low = ScoredPair(original=2, candidate=4), ScoredPair(original=2, candidate=1)
    found = reward_of({"aesthetic": [high, low], "alignment": [high]})
    assert found.total == 6.5 and found.alignment_gain == 2.0 and found.num_answers == 3
    assert reward_of({"aesthetic": [high], "alignment": []}).total is None
    assert reward_of({}).total is None


def test_pairs_are_what_the_scores_say() -> None:
    dropped: Counter[str] = Counter()

    def chosen(prompts: str, *rewards: Reward, tolerance: float | None = 0.0) -> object:
        found = choose(list(prompts), rewards, alignment_tolerance=tolerance, dropped=dropped)
        return found and (found.chosen, found.rejected)

    assert chosen("abc", worth(3.0), worth(9.0), worth(1.0)) == (1, 2)
    # Beauty that costs alignment wins nothing, though it is what is unlearned.
    assert chosen("abc", worth(3.0), worth(9.0, -1.0), worth(1.0)) == (0, 2)
    assert chosen("ab", worth(3.0), worth(9.0, -1.0), tolerance=None) == (1, 0)
    assert chosen("ab", worth(3.0), worth(9.0, -1.0), tolerance=1.0) == (1, 0)
    assert chosen("abc", worth(None), worth(2.0), worth(1.0)) == (1, 2)
    assert not dropped
    assert chosen("ab", worth(2.0), worth(2.0)) is None
    assert chosen("ab", worth(2.0, -1.0), worth(1.0, None)) is None
    assert chosen("ab", worth(None), worth(1.0)) is None
    # The only one that passes is the worst of all.
    assert chosen("ab", worth(9.0, -1.0), worth(1.0)) is None
    assert dropped == {"tie": 2, "alignment": 1, "unscored": 1}


def test_answers_are_paired_by_how_they_were_assessed() -> None:
    assert choose_answers([3.0, None, 4.5, 1.0]) is not None
    found = choose_answers([3.0, None, 4.5, 1.0])
    assert found and (found.chosen, found.rejected) == (2, 3)
    assert choose_answers([3.0, 3.0]) is None and choose_answers([None, 3.0]) is None


def test_what_was_judged_is_kept_whole() -> None:
    verdicts = Verdicts(
        candidate=0,
        rubric="aesthetic",
        swapped=True,
        texts=(said(5, 1), None, "nonsense"),
        assessments=(4.0, None, None),
    )
    rollout = DrawnPrompt(
        prompt="a", picture="0", candidates=(DrawnRewrite(prompt="b", picture="1"),)
    )
    one = JudgedPrompt(rollout=rollout, verdicts=(verdicts,))
    assert JudgedPrompt.of(json.loads(json.dumps(one.plain())), "here") == one
    assert one.num_invalid == 2 and one.rewards[0].total == 5.0
    assert judge_pairs(one) == []
    with pytest.raises(ValueError, match="here"):
        DrawnPrompt.of({"prompt": "a", "picture": 3, "candidates": []}, "here")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return keep_picture(tmp_path / "pictures", images.encode_png(np.zeros((4, 4, 3), np.uint8)))


def test_examples_are_read_as_they_are_written(tmp_path: Path, picture: Path) -> None:
    listed = [
        Example(question="which?", answer="this", rejected="that", images=(picture, picture)),
        Example(question="rewrite: a", answer="a b", rejected="c"),
    ]
    assert write_examples(tmp_path / "pairs.jsonl", listed) == 2
    assert read_examples(tmp_path / "pairs.jsonl") == listed
    one = json.loads((tmp_path / "pairs.jsonl").read_text().splitlines()[0])
    assert one["images"] == [f"pictures/{picture.name}"] * 2
    assert [part["type"] for part in one["prompt"][0]["content"]] == ["image", "image", "text"]
    write_swift(tmp_path / "swift.jsonl", listed)
    swift = json.loads((tmp_path / "swift.jsonl").read_text().splitlines()[0])
    assert swift["messages"][0]["content"] == "<image><image>which?"
    assert (swift["messages"][1]["content"], swift["rejected_response"]) == ("this", "that")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"images": ["nowhere.png"]}, "there is no picture"),
        ({"images": "a.png"}, "expected prompt"),
        ({"prompt": []}, "prompt|unpack"),
        ({"completion": None}, "not|None"),
        ({"chosen": [{"role": "assistant", "content": [{"type": "text", "text": "a"}]}]}, "both"),
    ],
)
def test_a_broken_example_is_told_by_its_line(tmp_path: Path, change: dict, why: str) -> None:
    path = tmp_path / "examples.jsonl"
    write_examples(path, [Example(question="a", answer="b")] * 2)
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps({**json.loads(second), **change})}\n")
    with pytest.raises(ValueError, match=rf"examples\.jsonl:2: no example: .*({why})"):
        read_examples(path)


def test_diffusiondb_gives_each_prompt_once(tmp_path: Path) -> None:
    path = tmp_path / "metadata.parquet"
    pq.write_table(pa.table({"prompt": ["a  star", "a star", "", "b"], "seed": [1, 2, 3, 4]}), path)
    assert list(diffusiondb_prompts(path)) == ["a star", "b"]
    pq.write_table(pa.table({"text": ["a"]}), path)
    with pytest.raises(ValueError, match=r"no column prompt; it has text"):
        list(diffusiondb_prompts(path))
    path.write_text("no table")
    with pytest.raises(ValueError, match="no parquet file"):
        list(diffusiondb_prompts(path))


def test_beautiful_prompt_becomes_rewrites(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    rows = [{"raw_prompt": "a cat", "prompt": "a cat, oil", "aesthetic_score": 6.1},
            {"raw_prompt": "same", "prompt": "same"}]  # fmt: skip
    path.write_text(json.dumps(rows))
    [one] = beautiful_prompt(path, WORDINGS["terse"])
    assert (one.question, one.answer) == ("rewrite: a cat", "a cat, oil")
    path.write_text(json.dumps([*rows, {"raw_prompt": "a"}]))
    with pytest.raises(ValueError, match="entry 2"):
        list(beautiful_prompt(path, WORDINGS["terse"]))


def jpeg(color: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (color, 0, 0)).save(buffer, format="JPEG")
    return buffer.getvalue()


def picks(path: Path, **changes: list) -> Path:
    """A parquet file as Pick-a-Pic v1 has it, of which some columns are left aside."""
    columns = {
        "caption": ["a  cat", "a dog", "b", "", "c", "d", "e"],
        "jpg_0": [jpeg(1), jpeg(2), jpeg(1), jpeg(1), b"no picture", jpeg(1), jpeg(1)],
        "jpg_1": [jpeg(3), jpeg(1), jpeg(3), jpeg(3), jpeg(3), jpeg(3), jpeg(3)],
        "label_0": [1.0, 0.0, 0.5, 1.0, 1.0, None, 0.0],
        "label_1": [0.0, 1.0, 0.5, 0.0, 0.0, None, 1.0],
        "has_label": [True, True, True, True, True, True, False],
        "image_0_uid": list("abcdefg"),
    }
    pq.write_table(pa.table({**columns, **changes}), path)
    return path


def test_pick_a_pic_gives_pairs_of_which_people_preferred_one(tmp_path: Path) -> None:
    dropped: Counter[str] = Counter()
    pictures = tmp_path / "pictures"
    pairs = list(pick_a_pic(picks(tmp_path / "picks.parquet"), pictures, dropped))
    assert [(pair.prompt, pair.preferred) for pair in pairs] == [("a cat", 0), ("a dog", 1)]
    assert dropped == {"tie": 1, "caption": 1, "picture": 1, "no label": 2}
    assert pairs[0].images[0] == pairs[1].images[1], "a picture is kept once"
    assert [path.read_bytes() for path in pairs[0].images] == [jpeg(1), jpeg(3)]
    assert {path.suffix for path in pictures.iterdir()} == {".jpg"}
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs
    # Older parts have no word for whether anybody chose.
    table = pq.read_table(tmp_path / "picks.parquet").drop_columns(["has_label"])
    pq.write_table(table, tmp_path / "older.parquet")
    assert len(list(pick_a_pic(tmp_path / "older.parquet", pictures, Counter()))) == 3


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"label_0": [1.0, 1.0, 0.5, 1.0, 1.0, None, 0.0]}, "row 2: labels 1.0 and 1.0"),
        ({"label_0": [float("nan")] * 7}, "row 1: labels nan"),
        ({"caption": [None] * 7}, "row 1, caption: None"),
        ({"jpg_1": ["text"] * 7}, "row 1, jpg_1: 'text'"),
    ],
)
def test_labels_and_columns_of_another_kind_are_refused(
    tmp_path: Path, change: dict, why: str
) -> None:
    path = picks(tmp_path / "picks.parquet", **change)
    with pytest.raises(ValueError, match=why):
        list(pick_a_pic(path, tmp_path / "pictures", Counter()))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"images": ["a.png"]}, "expected two paths"),
        ({"images": ["a.png", "a.png"]}, "there is no picture"),
        ({"preferred": 2}, "preferred is 2; give 0 or 1"),
        ({"preferred": True}, "preferred"),
        ({"prompt": " "}, "jsonl:2"),
        ({"scores": {}}, "unknown key 'scores'"),
    ],
)
def test_a_broken_pair_is_told_by_its_line(
    tmp_path: Path, picture: Path, change: dict, why: str
) -> None:
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, [PicturePair(prompt="a", images=(picture, picture), preferred=1)] * 2)
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps({**json.loads(second), **change})}\n")
    with pytest.raises(ValueError, match=rf"pairs\.jsonl:2: .*{why}|{why}"):
        read_pairs(path)
    path.write_text("")
    with pytest.raises(ValueError, match="holds no pairs"):
        read_pairs(path)


def test_the_best_of_some_passes_the_gate_and_is_the_first_of_equals() -> None:
    rewards = [worth(9, -1), worth(None), worth(5), worth(7), worth(7)]
    assert [best_of(rewards[:number], 0) for number in range(6)] == [None, None, None, 2, 3, 3]
    assert best_of(rewards, None) == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"num_prompts": []}, "one number an iteration"),
        ({"num_candidates": 1}, "num_candidates is 1"),
        ({"judge": {"rubrics": ["aesthetic"], "assessed_rubrics": []}}, "alignment_tolerance"),
        ({"judge": {"rubrics": ["aesthetic", "aesthetic"]}}, "each once"),
        (
            {"images": {"model": {"checkpoint": "a"}, "endpoint": {"model": "b"}}},
            "model and endpoint",
        ),
        ({"sft": {"batch_size": 5, "micro_batch_size": 2}}, "no multiple"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(change: dict, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        from_dict(SelfRewardSettings, {"out": "out", "prompts": "prompts.txt", **change})


def test_the_numbers_are_the_published_ones() -> None:
    settings = from_dict(SelfRewardSettings, {"out": "out", "prompts": "prompts.txt"})
    rollout, judge = settings.rollout, settings.judge
    assert (settings.num_candidates, rollout.temperature, rollout.top_p) == (8, 0.9, 0.9)
    assert (judge.num_samples, len(judge.rubrics), judge.max_assessed) == (3, 3, 10_000)
    assert settings.num_prompts == (10_000, 20_000) and settings.num_beams == 4
    sft, dpo = settings.sft, settings.dpo
    assert (sft.batch_size, sft.weight_decay, sft.learning_rate) == (16, 0.1, 2e-5)
    assert sft.betas == dpo.betas == (0.9, 0.95)
    assert (dpo.beta, dpo.batch_size, dpo.epochs, dpo.weight_decay) == (0.1, 32, 4, 0)
    assert (dpo.rate(1), dpo.rate(2)) == (1e-5, 5e-6)
