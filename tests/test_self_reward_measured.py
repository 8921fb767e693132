"""What a run of the optimiser is measured by: lines of pictures, and judged pairs."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exploring import Habits
from test_self_reward import Oracle, settings, stages

from eval.__main__ import main as staged_eval
from eval.results import BenchmarkResult
from staged import images
from staged.cli import main
from staged.command_line import exit_codes
from staged.settings import save_resolved
from train.self_reward import job as job_module
from train.self_reward import miniature, using
from train.self_reward.asking import TwoScores, write_judgement
from train.self_reward.job import SelfRewardJob
from train.self_reward.preferences import PicturePair, write_pairs
from train.self_reward.vlm import Asked

HELD_OUT = ["something red next to a star", "two blue things"]


class Writer(Oracle):
    """Writes a rewrite that fits, and none for what it does not know."""

    def __init__(self, digest: str = "writer") -> None:
        super().__init__()
        self.digest = digest

    def likeliest(self, asked: Asked, *, num_beams: int, max_new_tokens: int) -> str | None:
        self.asked.append(asked.question)
        if "blue" in asked.question and self.digest == "sft":
            return None
        texts = self.sample(asked, 1, None, seed=0)  # type: ignore[arg-type]
        return texts[0]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run whose two models play `Writer`."""
    given = settings(tmp_path, sft_data=["lessons.jsonl"])
    save_resolved(given, given.out / job_module.SETTINGS)
    for name in ("sft", "1/model"):
        (given.out / name).mkdir(parents=True)
        (given.out / name / "training.json").write_text("[]")
    writers = {"sft": Writer("sft"), "model": Writer("dpo1")}
    monkeypatch.setattr(using, "_open", lambda source, vlm: writers[Path(source).name])
    return given.out


def drawn(line: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in line.read_text().splitlines()]


def test_lines_are_drawn_with_the_same_noise_and_scored_side_by_side(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Habits()
    monkeypatch.setattr("staged.idea2img.image_models.open_image_model", lambda named: model)
    asked = tmp_path / "held_out.txt"
    asked.write_text("".join(f"{prompt}\n" for prompt in HELD_OUT))
    out = tmp_path / "drawn"
    words = ["self-reward", "draw", "--run", str(run), "--prompts", str(asked), "--out", str(out)]
    assert main([*words, "--images-per-prompt", "2", "--device", "cpu"]) == 0
    lines = {path.stem: drawn(path) for path in out.glob("*.jsonl")}
    assert lines.keys() == {"original", "sft", "dpo1"}
    assert [one["prompt"] for one in lines["sft"]] == [HELD_OUT[0]] * 2 + [HELD_OUT[1]] * 2
    assert [one["drawn"] for one in lines["sft"]][2:] == [None, None]
    assert all(one["drawn"] == one["prompt"] for one in lines["original"])
    seeds = {seed for _, seed in model.drawn}
    assert len(model.drawn) == 8 + 2 - 2 and len(seeds) == 4, "noise is a prompt's and a number's"
    before = list(model.drawn)
    assert main([*words, "--images-per-prompt", "2", "--iterations", "1"]) == 0
    assert model.drawn == before, "what is there is drawn again"
    assert main([*words, "--images-per-prompt", "1"]) == exit_codes.FAILED
    assert main([*words, "--iterations", "2"]) == exit_codes.FAILED
    assert "holds no model of iteration 2; there are those of 0, 1" in capsys.readouterr().err
    sources = [str(out / f"{line}.jsonl") for line in ("original", "sft", "dpo1")]
    score = ["rewards", "--images", *sources, "--reward", "detector", "--out", str(tmp_path / "s")]
    assert staged_eval(score) == 1, "a prompt without a rewrite is unscored"
    said = capsys.readouterr()
    assert "sft, detector: 2 images unscored, no image" in said.out
    assert staged_eval([*score, "--allow-unscored"]) == 0
    assert "detector, dpo1 over original" in capsys.readouterr().out
    found = {
        line: BenchmarkResult.read(tmp_path / "s" / line / "detector.json").overall
        for line in lines
    }
    assert (found["original"].value, found["dpo1"].value) == (0, 1), "it draws details alone"
    assert (found["sft"].n, found["sft"].unscored) == (2, 2)
    (tmp_path / "other.jsonl").write_text(json.dumps({"image": "a.png", "prompt": "a star"}))
    shutil.copy(tmp_path / "drawn/pictures/original/00000-000.png", tmp_path / "a.png")
    others = ["rewards", "--images", sources[0], str(tmp_path / "other.jsonl"), *score[5:]]
    with pytest.raises(ValueError, match="is of other prompts than"):
        staged_eval(others)


def test_what_a_judge_would_choose_is_written_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job_module, "open_image_model", lambda named: Habits())
    stages(SelfRewardJob(settings(tmp_path), open_answerer=lambda source: Oracle()))
    words = ["self-reward", "chosen", "--run", str(tmp_path / "out"), "--out", str(tmp_path / "c")]
    assert main([*words, "--among", "1", "5"]) == 0
    lines = {path.stem: drawn(path) for path in (tmp_path / "c").glob("*.jsonl")}
    assert lines.keys() == {"original", "best_of_1", "best_of_5"}
    for one in lines["best_of_5"]:
        assert (tmp_path / "c" / one["image"]).is_file()
        assert one["drawn"] != one["prompt"], "the first one fits, and the judge sees that"
    assert main([*words, "--among", "6"]) == exit_codes.USAGE
    assert main([*words, "--iteration", "2"]) == exit_codes.FAILED
    assert "2/judged.json" in capsys.readouterr().err


def test_a_judge_is_held_against_known_preferences(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    ideas = [*HELD_OUT, "something green and a heart"]
    pairs = [pair for idea in ideas if (pair := miniature.pair_of(idea, tmp_path / "p", rng))]
    assert len(pairs) == 3
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    words = ["self-reward", "prefer", str(tmp_path / "pairs.jsonl"), "--run", str(run)]
    assert main([*words, "--iteration", "0", "--out", str(tmp_path / "sft")]) == 0
    judge = using._open("1/model", None)  # type: ignore[arg-type]

    def alike(asked: Asked, number: int, sampling: Any, *, seed: int) -> list[str | None]:
        judge.asked.append(asked.question)
        if asked.question.startswith("liking"):
            return ["nonsense"] * number
        return [write_judgement(TwoScores(scores=(4, 4), reasons=("a", "b")))] * number

    monkeypatch.setattr(judge, "sample", alike)
    assert main([*words, "--out", str(tmp_path / "dpo1")]) == 0, "the newest model's"
    assert "3 pairs, 0 with scores under every rubric" in capsys.readouterr().out
    asked = len(judge.asked)
    assert main([*words, "--out", str(tmp_path / "dpo1")]) == 0
    assert len(judge.asked) == asked == 3 * 3 * 2, "what was said is asked again"
    files = [str(tmp_path / name / "preferred.jsonl") for name in ("sft", "dpo1")]
    out = ["--out", str(tmp_path / "accuracy")]
    assert staged_eval(["judge-accuracy", files[0], *out]) == 0
    result = BenchmarkResult.read(tmp_path / "accuracy/sft.json")
    assert (result.overall.value, result.overall.n) == (1, 3), "it judges as the detector does"
    assert set(result.also) == {"aesthetic", "alignment", "preference"}
    # Other rubrics are another judge's question: the two are not compared.
    with pytest.raises(ValueError, match="different variants"):
        staged_eval(["judge-accuracy", *files, *out])
    assert staged_eval(["judge-accuracy", files[1], *out]) == 0
    assert BenchmarkResult.read(tmp_path / "accuracy/dpo1.json").overall.value == 0.5
    # The other way round, by hand.
    lines = [json.loads(line) for line in Path(files[0]).read_text().splitlines()]
    for line in lines:
        line["preferred"] = 1 - line["preferred"]
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong/preferred.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert staged_eval(["judge-accuracy", str(tmp_path / "wrong/preferred.jsonl"), *out]) == 0
    assert BenchmarkResult.read(tmp_path / "accuracy/wrong.json").overall.value == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"preferred": 3}, "preferred is 3"),
        ({"images": ["a"]}, "expected two paths"),
        ({"scores": {"alignment": [1]}}, "expected two numbers"),
        ({"scores": {"alignment": [1, None]}}, "expected two numbers"),
        ({"scores": {}}, "gave no valid answer"),
    ],
)
def test_broken_judgements_are_told_by_their_line(tmp_path: Path, change: dict, why: str) -> None:
    good = {"prompt": "a", "images": ["a", "b"], "preferred": 0, "scores": {"alignment": [1, 2]}}
    path = tmp_path / "preferred.jsonl"
    path.write_text(json.dumps({**good, **change}))
    with pytest.raises(ValueError, match=why):
        staged_eval(["judge-accuracy", str(path), "--out", str(tmp_path / "out")])


def test_many_prompts_are_optimised_and_kept_over_a_kill(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, out = tmp_path / "asked.txt", tmp_path / "written.txt"
    asked.write_text("".join(f"{prompt}\n" for prompt in HELD_OUT))
    words = ["self-reward", "optimise", "--run", str(run), "--iteration", "0",
             "--prompts", str(asked)]  # fmt: skip
    assert main([*words, "--out", str(asked)]) == exit_codes.USAGE
    assert asked.read_text().splitlines() == HELD_OUT, "prompts were replaced by their rewrites"
    writer = using._open("sft", None)  # type: ignore[arg-type]

    def killed(asked: Asked, **how: Any) -> str | None:
        if "blue" in asked.question:
            raise KeyboardInterrupt
        return Writer.likeliest(writer, asked, **how)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(writer, "likeliest", killed)
        assert main([*words, "--out", str(out)]) not in (exit_codes.OK, exit_codes.FAILED)
    first = [question for question in writer.asked if "red" in question]
    assert main([*words, "--out", str(out)]) == exit_codes.FAILED and not out.exists()
    assert "no prompt came for 'two blue things'" in capsys.readouterr().err
    assert main([*words, "--out", str(out), "--keep-unwritten"]) == 0
    assert [q for q in writer.asked if "red" in q] == first, "what was written is written again"
    lines = out.read_text().splitlines()
    assert lines[1] == HELD_OUT[1] and lines[0] != HELD_OUT[0]
    assert not (tmp_path / "written.txt.kept").exists()


def test_a_pair_is_about_a_difference_that_the_detector_sees(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    places = set()
    for _ in range(12):
        pair = miniature.pair_of("something red next to a star", tmp_path, rng)
        if pair is not None:
            assert isinstance(pair, PicturePair)
            places.add(pair.preferred)
            assert all(images.decode_file(path).shape == (48, 48, 3) for path in pair.images)
    assert places == {0, 1}
