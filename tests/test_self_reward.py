"""The optimiser's stages, with an exact judge in the model's place, and with TRL on tiny models."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exploring import Habits
from safetensors.torch import load_file
from training import start

from staged import images
from staged.cli import main
from staged.command_line import exit_codes
from staged.model.patches import patchify
from staged.settings import from_dict
from staged.shapes.language.prompts import read_prompt, write_prompt
from staged.shapes.language.wishes import read_vision
from staged.shapes.miniature import open_named
from staged.shapes.sight.detect import detect
from staged.shapes.sight.wishes import fulfilled
from train.self_reward import job as job_module
from train.self_reward import miniature
from train.self_reward.asking import TwoScores, write_assessment, write_judgement
from train.self_reward.examples import read_examples
from train.self_reward.job import SelfRewardJob
from train.self_reward.judging import JudgedPrompt
from train.self_reward.settings import (
    DpoSettings,
    LoraOptions,
    SamplingSettings,
    SelfRewardSettings,
    TuningSettings,
    VlmSettings,
)
from train.self_reward.tuning import tune
from train.self_reward.vlm import Asked, LocalVlm, open_model

IDEAS = ["something red next to a star", "two blue things", "something green and a heart"]


class Oracle:
    """Writes rewrites of which some fit, and judges as the detector does.

    Args:
        before: Called with the number of each question, from 1, before it is answered.
    """

    digest = "oracle"

    def __init__(self, before: Callable[[int], None] = lambda number: None) -> None:
        self.asked: list[str] = []
        self._before = before

    def sample(
        self, asked: Asked, number: int, sampling: SamplingSettings, *, seed: int
    ) -> list[str | None]:
        self.asked.append(asked.question)
        self._before(len(self.asked))
        word, _, rest = asked.question.partition(": ")
        rng = np.random.default_rng(seed)
        if " assess: " in asked.question:
            right = "score: 5" in asked.question.lower()
            return [write_assessment(5 if right else 2)] * number
        if word == "rewrite":
            specs = list(read_vision(rest).candidates())
            right = specs[rng.integers(len(specs))]
            wrong = miniature._mistaken(right, rng)
            return [write_prompt(right), write_prompt(wrong), None, rest, ""][:number]
        rubric = {"beauty": "aesthetic", "liking": "preference", "fit": "alignment"}[word]
        drawn = [images.decode(data) for data in asked.pictures]
        judged = miniature.teacher(read_vision(rest), drawn, rubric)
        other = TwoScores(scores=judged.scores, reasons=("a shape", "a shape"))
        return [write_judgement(judged), write_judgement(other), "nonsense"][:number]


def settings(folder: Path, **changes: Any) -> SelfRewardSettings:
    (folder / "prompts.txt").write_text("".join(f"{idea}\n" for idea in IDEAS))
    plain = {
        "out": str(folder / "out"),
        "prompts": str(folder / "prompts.txt"),
        "num_prompts": [2, 1],
        "num_candidates": 5,
        "vlm": {"wording": "terse", "device": "cpu", "dtype": "float32", "model": "nobody"},
        "images": {"model": {"checkpoint": "miniature:base", "device": "cpu", "dtype": "float32"}},
    }
    return from_dict(SelfRewardSettings, {**plain, **changes})


@pytest.fixture
def habits(monkeypatch: pytest.MonkeyPatch) -> Habits:
    model = Habits()
    monkeypatch.setattr(job_module, "open_image_model", lambda images: model)
    return model


def stages(job: SelfRewardJob) -> dict[str, Any]:
    found = [job.rollout(1), job.judge(1), job.pairs(1)]
    return {one.stage: one.counts for one in found}


def made(folder: Path) -> dict[str, bytes]:
    """Everything that later stages read."""
    files = [*folder.glob("*.json*"), *folder.glob("pictures/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_preferences_are_what_the_judge_says(tmp_path: Path, habits: Habits) -> None:
    job = SelfRewardJob(settings(tmp_path), open_answerer=lambda source: Oracle())
    counts = stages(job)
    # What is empty, cut off, or the prompt itself is no candidate.
    assert counts["rollout 1"] == {"prompts": 2, "candidates": 4}
    # Three rubrics, two orders, three answers, of which one is in no form.
    assert counts["judge 1"] == {"judged": 2, "answers": 72, "invalid answers": 24}
    seeds = {seed for _, seed in habits.drawn}
    assert len(habits.drawn) == 6 and len(seeds) == 2, "original and rewrites have the same noise"
    folder = tmp_path / "out/1"
    judged = [JudgedPrompt.of(one, "") for one in json.loads((folder / "judged.json").read_text())]
    examples = read_examples(folder / "pairs.jsonl")
    rewrites = [one for one in examples if not one.images]
    assert len(rewrites) == counts["pairs 1"]["prompt pairs"] >= 1
    for one in rewrites:
        idea = one.question.removeprefix("rewrite: ")
        of_idea = next(each for each in judged if each.rollout.prompt == idea)
        rewards = {
            candidate.prompt: reward
            for candidate, reward in zip(of_idea.rollout.candidates, of_idea.rewards, strict=True)
        }
        assert one.rejected is not None
        assert rewards[one.answer].total > rewards[one.rejected].total
        assert rewards[one.answer].alignment_gain >= 0
        drawn = job_module.picture_at(folder / "pictures", next(
            each.picture for each in of_idea.rollout.candidates if each.prompt == one.answer
        ))  # fmt: skip
        assert fulfilled(read_vision(idea), detect(images.decode_file(drawn))).correct
        assert read_prompt(one.answer)
    # Answers to one question are assessed alike here: there is nothing to learn from them.
    assert counts["pairs 1"]["judge pairs"] == 0
    swift = [json.loads(line) for line in (folder / "pairs.swift.jsonl").read_text().splitlines()]
    assert [one["rejected_response"] for one in swift] == [one.rejected for one in examples]


def test_judgements_that_are_assessed_apart_become_pairs(tmp_path: Path, habits: Habits) -> None:
    class Torn(Oracle):
        def sample(self, asked: Asked, number: int, *rest: Any, **seed: Any) -> list[str | None]:
            if " assess: " in asked.question:
                self.asked.append(asked.question)
                return [write_assessment(1 if "a shape" in asked.question.lower() else 5)]
            return super().sample(asked, number, *rest, **seed)

    few = {"max_assessed": 4}
    job = SelfRewardJob(settings(tmp_path, judge=few), open_answerer=lambda source: Torn())
    # Four questions: two rubrics, in both orders, about the first candidate.
    assert stages(job)["pairs 1"]["judge pairs"] == 4
    pairs = [one for one in read_examples(tmp_path / "out/1/pairs.jsonl") if one.images]
    assert {one.question.partition(":")[0] for one in pairs} == {"beauty", "liking"}
    assert all("a shape" in (one.rejected or "") and "a shape" not in one.answer for one in pairs)
    assert pairs[0].images == pairs[1].images[::-1], "in both orders"


def killed_at(folder: Path, number: int, stage: str) -> None:
    """Run a stage and die at a question."""

    def die(asked: int) -> None:
        if asked == number:
            os._exit(9)

    job_module.open_image_model = lambda images: Habits()  # type: ignore[assignment]
    job = SelfRewardJob(settings(folder), open_answerer=lambda source: Oracle(die))
    getattr(job, stage)(1)


def died(process: Any) -> bool:
    process.join(120)
    return process.exitcode == 9


@pytest.mark.slow
def test_a_killed_stage_goes_on_to_the_same_bytes(tmp_path: Path, habits: Habits) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    oracle = Oracle()
    stages(SelfRewardJob(settings(whole), open_answerer=lambda source: oracle))
    drawn = len(habits.drawn)
    assert died(start(killed_at, killed, 2, "rollout"))
    assert not (killed / "out/1/rollouts.json").exists()
    after = Oracle()
    job = SelfRewardJob(settings(killed), open_answerer=lambda source: after)
    job.rollout(1)
    assert died(start(killed_at, killed, 17, "judge"))
    asked = len(after.asked)
    job.judge(1)
    assert len(after.asked) - asked == len(oracle.asked) - 2 - 16, "what was kept is asked again"
    job.pairs(1)
    assert made(killed / "out/1") == made(whole / "out/1")
    assert len(habits.drawn) - drawn <= drawn
    before = len(after.asked)
    job.rollout(1), job.judge(1)
    assert len(after.asked) == before, "a stage that is whole is not done again"


def test_other_settings_or_prompts_are_refused(tmp_path: Path, habits: Habits) -> None:
    given = settings(tmp_path)
    stages(SelfRewardJob(given, open_answerer=lambda source: Oracle()))
    with pytest.raises(ValueError, match=r"holds work of other settings: .*num_candidates"):
        SelfRewardJob(replace(given, num_candidates=3))
    job = SelfRewardJob(given, open_answerer=lambda source: Oracle())
    (tmp_path / "prompts.txt").write_text("three red things\ntwo blue things\na star\n")
    with pytest.raises(ValueError, match="other settings"):
        job.rollout(1)
    with pytest.raises(ValueError, match=r"holds no model yet; run .*dpo --iteration 1"):
        job.rollout(2)
    with pytest.raises(ValueError, match="there are 2"):
        job.judge(3)


AMOUNTS = {"num_ideas": 4, "num_lessons": 2, "num_pictured": 2, "num_prompts": 1,
           "num_held_out": 1}  # fmt: skip


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("school")
    counts = miniature.write_world(folder, **AMOUNTS, num_suite=0, seed=0)
    assert (counts["rewrites"], counts["prompts"], counts["held out"]) == (24, 3, 3)
    assert counts["lessons with pictures"] >= 24 and counts["pairs"] >= 1
    miniature.write_vlm(folder / "vlm", seed=0, hidden_size=64, num_layers=1)
    return folder


def vlm(school: Path, **changes: Any) -> VlmSettings:
    return VlmSettings(
        model=str(school / "vlm"), wording="terse", device="cpu", dtype="float32", **changes
    )


QUICK: dict[str, Any] = {"learning_rate": 1e-2, "batch_size": 6, "micro_batch_size": 3,
                         "save_every_steps": 2}  # fmt: skip


def test_lessons_are_words_that_the_model_has(school: Path, tmp_path: Path) -> None:
    model = LocalVlm(str(school / "vlm"), vlm(school))
    tokenizer = model.processor.tokenizer
    # Four riddles of each of three kinds, and two prompts of each of eight tasks, rewritten twice.
    counts = miniature.write_world(tmp_path, **AMOUNTS, num_suite=2, seed=1)
    assert counts["rewrites"] == 2 * (12 + 16)
    for one in read_examples(tmp_path / "sft.jsonl") + read_examples(tmp_path / "rewrites.jsonl"):
        text = f"{one.question} {one.answer}".lower()
        tokens = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in tokens, text
        assert tokenizer.decode(tokens) == text


def test_answers_depend_on_question_and_seed_alone(school: Path) -> None:
    model = LocalVlm(str(school / "vlm"), vlm(school))
    one = read_examples(school / "sft.jsonl")[0]
    asked = Asked(question=one.question, pictures=tuple(p.read_bytes() for p in one.images))
    sampling = SamplingSettings(max_new_tokens=4)
    said = model._generate(asked, 4, do_sample=False)
    assert said == model._generate(asked, 4, do_sample=False)
    texts = model.sample(asked, 3, sampling, seed=5)
    model.sample(Asked(question="rewrite: a star"), 2, sampling, seed=6)
    assert model.sample(asked, 3, sampling, seed=5) == texts and len(texts) == 3


def test_imitation_and_preference_are_learned_and_resumed(
    school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.trainer.sft_trainer import SFTTrainer

    examples = read_examples(school / "sft.jsonl")
    quick = TuningSettings(epochs=4, **QUICK)
    log = tune(str(school / "vlm"), examples, tmp_path / "sft", quick, vlm(school), seed=0)
    losses = [one["loss"] for one in log if "loss" in one]
    assert len(losses) == 4 * -(-len(examples) // 6) and np.mean(losses[-6:]) < 0.7 * losses[0]
    # Broken off in the fifth step, it goes on from the state after the fourth.
    steps = iter(range(100))
    takes = SFTTrainer.training_step

    def broken(*args: Any, **kwargs: Any) -> Any:
        if next(steps) == 9:
            raise KeyboardInterrupt
        return takes(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(SFTTrainer, "training_step", broken)
        with pytest.raises(KeyboardInterrupt):
            tune(str(school / "vlm"), examples, tmp_path / "again", quick, vlm(school), seed=0)
    tune(str(school / "vlm"), examples, tmp_path / "again", quick, vlm(school), seed=0)
    whole, again = (load_file(tmp_path / name / "model.safetensors") for name in ("sft", "again"))
    assert all(np.array_equal(whole[name], again[name]) for name in whole)
    # Text alone and pictures side by side, as an iteration's pairs are.
    some, others = examples[:3] + examples[-3:], examples[3:6] + examples[:3]
    pairs = [replace(one, rejected=other.answer) for one, other in zip(some, others, strict=True)]
    prefer = DpoSettings(epochs=6, **{**QUICK, "learning_rate": 3e-3})
    log = tune(str(tmp_path / "sft"), pairs, tmp_path / "dpo", prefer, vlm(school), seed=0)
    losses = [one["loss"] for one in log if "loss" in one]
    assert losses[0] == pytest.approx(np.log(2), abs=1e-3) and losses[-1] < 0.6
    assert log[-2]["rewards/margins"] > 0
    with pytest.raises(ValueError, match="all with a rejected answer"):
        tune(str(tmp_path / "sft"), examples, tmp_path / "none", prefer, vlm(school), seed=0)


def test_a_lora_is_trained_on_and_answers(school: Path, tmp_path: Path) -> None:
    low = vlm(school, lora=LoraOptions(rank=2, alpha=4))
    examples = read_examples(school / "sft.jsonl")[-8:-2]
    once = TuningSettings(epochs=1, **QUICK)
    tune(low.model, examples, tmp_path / "sft", once, low, seed=0)
    assert (tmp_path / "sft/adapter_model.safetensors").is_file()
    pairs = [replace(one, rejected="a ring") for one in examples]
    once_more = DpoSettings(epochs=2, **QUICK)
    log = tune(str(tmp_path / "sft"), pairs, tmp_path / "dpo", once_more, low, seed=0)
    assert log[0]["loss"] == pytest.approx(np.log(2), abs=1e-3)
    model = LocalVlm(str(tmp_path / "dpo"), low)
    before = LocalVlm(low.model, low)
    assert model.digest != before.digest
    asked = Asked(question="rewrite: a star")
    assert len(model.sample(asked, 2, SamplingSettings(max_new_tokens=3), seed=0)) == 2


def test_a_prompt_is_optimised_by_the_newest_model(
    school: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["self-reward", "optimise", "a star", "--device", "cpu", "--num-beams", "2"]
    source = ["--model", str(school / "vlm"), "--wording", "terse", "--max-new-tokens", "2"]
    assert main([*words, *source]) == exit_codes.FAILED, "it was taught nothing, and goes on"
    assert "no prompt came for 'a star'" in capsys.readouterr().err
    assert main([*words, "--run", str(tmp_path)]) == exit_codes.FAILED
    assert "holds no run" in capsys.readouterr().err


def test_a_judge_is_born_with_the_eyes_of_the_base(school: Path) -> None:
    model = open_model(str(school / "vlm"), torch.float32).model.vision_tower.eval()
    tower = open_named("base", seed=0, device="cpu", dtype=torch.float32).model.vision
    side, patch = tower.config.positions_per_side, tower.config.patch_size
    pictures = torch.rand(2, 3, side * patch, side * patch) * 2 - 1
    seen = model(pictures, output_hidden_states=True)
    places = torch.arange(side**2).repeat(2)
    wanted = tower(patchify(pictures, patch).flatten(0, 1), places, [side**2] * 2)
    torch.testing.assert_close(seen.last_hidden_state.flatten(0, 1), wanted, atol=1e-4, rtol=1e-4)
    # A LLaVA reads what stands before the final norm: hundreds in the base.
    assert 0.3 < seen.hidden_states[-1].std(dim=-1).median() < 3
