"""Best-of-N: who is chosen, what it costs, and that a judge who chooses is told."""

import hashlib
import json
import os
import signal
from dataclasses import replace
from pathlib import PurePosixPath

import clips
import numpy as np
import pytest
from test_eval_generation import prompts_file, tree
from test_eval_judge import write_prompts

from eval.__main__ import main as staged_eval
from eval.clip import ClipEmbedder
from eval.generation.benchmarks import BENCHMARKS
from eval.generation.model import CheckpointGenerator
from eval.generation.run import generate
from eval.generation.samples import BenchmarkSample
from eval.generation.store import Store
from eval.geneval.detector import open_detector
from eval.geneval.prompt import parse_prompt
from eval.miniature import main as miniature
from eval.results import BenchmarkResult
from eval.rewards.scorers import clip_score
from eval.search.best_of import NOT_VERIFIED, BestOf, candidate_seed, outcome_of
from eval.search.settings import SearchSettings, VerifierSettings
from eval.search.verifier import UPPER_BOUND
from eval.search.verifiers.detector import GenEvalVerifier, MiniatureVerifier
from eval.search.verifiers.opening import open_verifier
from staged.backends.generators.generator import DrawnImage, NoImage
from staged.backends.lmm.settings import LmmSettings
from staged.command_line import exit_codes
from staged.generate.settings import ModelSettings
from staged.jobs.rank import Rank
from staged.roles import Rated, Rating
from staged.shapes.world.render import render
from staged.shapes.world.scene import Scene, Shape

CIRCLE = Shape(kind="circle", color="red", size="large", x=14, y=24)
STAR = Shape(kind="star", color="blue", size="large", x=34, y=24)
BESIDE = "a photo of a red circle left of a blue star"


def picture(*shapes):
    return render(Scene(shapes=shapes, background=(160, 165, 170)))


def samples(*prompts):
    return [
        BenchmarkSample(
            prompt_key=str(place),
            prompt=prompt,
            image=0,
            number=place,
            seed=100 + place,
            path=PurePosixPath(f"{place}.png"),
        )
        for place, prompt in enumerate(prompts)
    ]


def shade_of(seed):
    return hashlib.sha256(str(seed).encode()).digest()[0]


class Shades:
    """Draws a shade that its seed decides, and fails where it is told to."""

    name, alone = "shades", True

    def __init__(self, *, steps=10, failing=(), killed_after=None):
        self.steps, self.failing, self.killed_after, self.drawn = steps, failing, killed_after, []

    def identity(self):
        return {"weights": "none"}

    def draw(self, wanted):
        for sample in wanted:
            if len(self.drawn) == self.killed_after:
                os.kill(os.getpid(), signal.SIGKILL)
            self.drawn.append(sample.seed)
            cost = {"flow_steps": self.steps} if self.steps else {}
            if sample.seed in self.failing:
                yield sample, NoImage(reason="refused", final=True, cost=cost)
            else:
                pixels = np.full((4, 4, 3), shade_of(sample.seed), np.uint8)
                yield sample, DrawnImage(pixels=pixels, cost=cost)


class Brightness:
    name = "brightness"

    def rate(self, pictures):
        return [Rating(value=float(p.pixels.mean())) for p in pictures]


class Blind:
    name = "blind"

    def rate(self, pictures):
        return [Rating(value=None, reason="too dark") for _ in pictures]


class Undecided:
    name = "undecided"

    def rate(self, pictures):
        return [Rating(value=float("nan") if p.pixels.max() > 250 else 1.0) for p in pictures]


def search(generator, verifier=None, *, batch=2, **numbers):
    return BestOf(generator, verifier or Brightness(), SearchSettings(**numbers), batch=batch)


def test_the_best_rated_candidate_is_kept_and_all_of_them_are_paid_for():
    [(_, found)] = search(Shades(), candidates=5).search(samples("a"))
    seeds = [candidate_seed(100, number) for number in range(5)]
    shades = [shade_of(seed) for seed in seeds]
    assert seeds[0] == 100 and len(set(seeds)) == 5
    assert [candidate.seed for candidate in found.candidates] == seeds
    assert found.chosen == int(np.argmax(shades))
    outcome = outcome_of(found)
    assert outcome.pixels.mean() == max(shades) and outcome.cost == {"flow_steps": 50}
    assert outcome.search == {
        "verifier": "brightness",
        "chosen": found.chosen,
        "candidates": [
            {"seed": seed, "rating": float(shade), "flow_steps": 10}
            for seed, shade in zip(seeds, shades, strict=True)
        ],
    }


def test_of_equals_the_first_is_kept_and_a_rating_that_is_no_number_is_none():
    [(_, found)] = search(Shades(), Undecided(), candidates=4).search(samples("a"))
    assert found.chosen == 0
    white = type("White", (Shades,), {"draw": lambda self, wanted: (
        (s, DrawnImage(pixels=np.full((4, 4, 3), 255, np.uint8))) for s in wanted)})()  # fmt: skip
    [(_, found)] = search(white, Undecided(), candidates=2).search(samples("a"))
    assert outcome_of(found).reason == NOT_VERIFIED
    assert "undecided gave nan" in outcome_of(found).detail


@pytest.mark.parametrize(("total", "number"), [(10, 1), (19, 1), (20, 2), (69, 6)])
def test_as_many_candidates_are_drawn_as_the_flow_steps_pay_for(total, number):
    found = dict(search(Shades(), total_flow_steps=total).search(samples("a", "b", "c")))
    assert {len(each.candidates) for each in found.values()} == {number}


def test_flow_steps_that_pay_for_nothing_or_that_nobody_counts_are_refused():
    with pytest.raises(ValueError, match="takes 10 flow steps and 9 are there"):
        list(search(Shades(), total_flow_steps=9).search(samples("a")))
    with pytest.raises(ValueError, match="does not count its flow steps"):
        list(search(Shades(steps=0), total_flow_steps=9).search(samples("a")))


def test_candidates_without_a_picture_are_passed_over_and_no_picture_at_all_is_told():
    best_of_3 = [candidate_seed(100, number) for number in range(3)]
    [(_, found)] = search(Shades(failing=best_of_3[:2]), candidates=3).search(samples("a"))
    assert found.chosen == 2
    [(_, none)] = search(Shades(failing=best_of_3), candidates=3).search(samples("a"))
    assert outcome_of(none) == NoImage(reason="refused", final=True, cost={"flow_steps": 30})
    [(_, blind)] = search(Shades(), Blind(), candidates=2).search(samples("a"))
    outcome = outcome_of(blind)
    assert (outcome.reason, outcome.detail, outcome.final) == (NOT_VERIFIED, "too dark", False)


def test_the_best_of_one_is_what_the_generator_draws_alone(tmp_path):
    settings = ModelSettings(checkpoint="miniature:fresh", num_flow_steps=2, dtype="float32")
    model = CheckpointGenerator(settings, batch_size=2)
    wanted = samples("a photo of a star", "a photo of two hearts", BESIDE)
    alone = {sample.path: outcome.pixels for sample, outcome in model.draw(wanted)}
    for batch in (1, 3):
        best = search(model, MiniatureVerifier(), candidates=1, batch=batch)
        for sample, outcome in best.draw(wanted):
            assert np.array_equal(outcome.pixels, alone[sample.path])


def run(folder, prompts, generator, **numbers):
    benchmark = BENCHMARKS["geneval"](str(prompts))
    benchmark.prepare(folder)
    best = search(generator, **numbers)
    with Store(folder, Rank()) as store:
        store.claim(dict(best.identity()), {})
        return generate(benchmark.samples(images_per_prompt=2), best, store, batch=1, rank=Rank())


@pytest.mark.parametrize("after", [0, 5, 13])
def test_a_killed_search_goes_on_to_the_same_bytes(tmp_path, after):
    prompts = prompts_file(tmp_path / "prompts.jsonl")
    assert run(tmp_path / "whole", prompts, Shades(), candidates=3).drawn == 10
    child = os.fork()
    if not child:
        run(tmp_path / "killed", prompts, Shades(killed_after=after), candidates=3)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert run(tmp_path / "killed", prompts, Shades(), candidates=3).unscored == 0
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
    with pytest.raises(ValueError, match="with another search"):
        run(tmp_path / "whole", prompts, Shades(), candidates=4)


# --- who rates -----------------------------------------------------------------------------------


def test_the_miniature_rates_by_what_of_the_prompt_is_there():
    shown = [
        picture(CIRCLE, STAR),
        picture(replace(CIRCLE, x=34), replace(STAR, x=14)),
        picture(CIRCLE),
        picture(replace(CIRCLE, color="green")),
    ]
    ratings = MiniatureVerifier().rate([Rated(prompt=BESIDE, pixels=p) for p in shown])
    assert [rating.value for rating in ratings] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    [other, large] = MiniatureVerifier().rate(
        [Rated(prompt="a cat", pixels=shown[0]), Rated(prompt=BESIDE, pixels=np.zeros((9, 9, 3)))]
    )
    assert other.value is large.value is None and other.reason and large.reason


def test_geneval_rates_by_the_clauses_that_hold():
    clauses = [{"class": "circle", "count": 1, "color": "red"},
               {"class": "star", "count": 1, "position": ["right of", 0]}]  # fmt: skip
    record = {"tag": "position", "include": clauses, "prompt": "p"}
    verifier = GenEvalVerifier(open_detector("miniature"), {"p": parse_prompt(record, "test")})
    shown = [picture(CIRCLE, STAR), picture(CIRCLE), picture(STAR)]
    ratings = verifier.rate([Rated(prompt="p", pixels=p) for p in shown])
    assert [rating.value for rating in ratings] == [1, 0.5, 0]
    [unknown] = verifier.rate([Rated(prompt="q", pixels=shown[0])])
    assert (unknown.value, unknown.reason) == (None, "not a prompt of GenEval's file")


def opened(tmp_path, **settings):
    return open_verifier(VerifierSettings(**settings), folder=tmp_path, rank=Rank())


def test_a_reward_rates_what_it_scores(tmp_path):
    folder = clips.save_tiny(tmp_path / "clip")
    scorer = clip_score(ClipEmbedder.load(folder, folder))
    with opened(tmp_path, kind="clipscore", clip=str(folder)) as verifier:
        assert verifier.name == scorer.name
        shown = [Rated(prompt="a ring", pixels=picture(s)) for s in (CIRCLE, STAR)]
        found = [rating.value for rating in verifier.rate(shown)]
    assert found == [scorer.formula(p.pixels, p.prompt) for p in shown]


def test_a_language_model_grades_and_no_grade_is_paid_for_twice(tmp_path):
    lmm = LmmSettings(model="shapes-lmm-1", api_key_env=None)
    shown = [Rated(prompt=BESIDE, pixels=picture(*s)) for s in ((CIRCLE, STAR), (CIRCLE,))]
    for _ in range(2):
        with opened(tmp_path, kind="lmm", lmm=lmm) as verifier:
            assert [rating.value for rating in verifier.rate(shown)] == [1, 0.3]
    attempts = [p for p in (tmp_path / "verifier.attempts").rglob("*") if p.is_file()]
    text = b"".join(path.read_bytes() for path in attempts)
    assert text.count(b"grade_picture") == 2


def test_a_checkpoint_rates_by_its_own_inspection(tmp_path):
    with opened(tmp_path, kind="inspector", weights="miniature:staged") as verifier:
        shown = [picture(CIRCLE, STAR), picture(STAR)]
        ratings = verifier.rate([Rated(prompt=BESIDE, pixels=p) for p in shown])
    assert {rating.value for rating in ratings} <= {0.0, 1.0}
    assert verifier.name.startswith("inspections of miniature:staged, weights ")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "lmm"}, "lmm.model is missing"),
        ({"kind": "inspector"}, "name the checkpoint"),
        ({"kind": "hps", "lmm": LmmSettings(model="m")}, "lmm is for the kinds"),
        ({"kind": "eyes"}, "give one of detector"),
    ],
)
def test_a_verifier_that_cannot_be_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        VerifierSettings(**settings)


# --- the commands --------------------------------------------------------------------------------

QUICK = ["checkpoint=miniature:fresh", "num_flow_steps=2"]


def test_pictures_that_the_judge_has_chosen_make_an_upper_bound(tmp_path, capsys):
    prompts = prompts_file(tmp_path / "prompts.jsonl")
    images, found, result = (tmp_path / name for name in ("images", "found.jsonl", "result.json"))
    assert staged_eval(
        ["generate", "--benchmark", "geneval", "--prompts", str(prompts), "--out", str(images),
         "--images-per-prompt", "1", "--best-of", "2", "--verifier", "detector",
         "weights=miniature", "--generator", "model", *QUICK]
    ) == 0  # fmt: skip
    lines = [json.loads(line) for line in (images / "samples.jsonl").read_text().splitlines()]
    assert {line["cost"]["flow_steps"] for line in lines} == {4}
    assert {len(line["search"]["candidates"]) for line in lines} == {2}
    detect = ["detect", str(images), "--detector", "miniature", "--out", str(found)]
    assert staged_eval(detect) == 0
    score = ["geneval", "--detections", str(found), "--out", str(tmp_path / "scored.jsonl"),
             "--generated", str(images), "--result", str(result)]  # fmt: skip
    assert staged_eval(score) == 0
    read = BenchmarkResult.read(result)
    assert read.run.endswith(f"best of 2 by detector, {UPPER_BOUND}")
    assert read.provenance["bound"] == UPPER_BOUND


def test_the_best_of_images_made_elsewhere_is_found_among_more_of_them(tmp_path):
    prompts = prompts_file(tmp_path / "prompts.jsonl")
    generated = ["generate", "--benchmark", "geneval", "--prompts", str(prompts)]
    more = [*generated, "--out", str(tmp_path / "more"), "--images-per-prompt", "4"]
    assert staged_eval([*more, "--generator", "model", *QUICK]) == 0
    assert staged_eval(
        [*generated, "--out", str(tmp_path / "best"), "--images-per-prompt", "2", "--best-of", "2",
         "--verifier", "detector", "weights=miniature", "--generator", "folder",
         f"images={tmp_path / 'more'}", "pattern={prompt:05}/samples/{image:05}.png"]
    ) == 0  # fmt: skip
    for place in range(5):
        folders = [tmp_path / name / f"{place:05}" / "samples" for name in ("best", "more")]
        best, there = ([p.read_bytes() for p in sorted(f.glob("*.png"))] for f in folders)
        assert best[0] in there[:2] and best[1] in there[2:]


def test_the_miniature_keeps_every_candidate_and_tells_what_a_better_choice_were_worth(tmp_path):
    asked = ["--checkpoint", "miniature:fresh", "--flow-steps", "2", "--tasks", "colors",
             "--num-per-task", "3", "--mode", "one-shot", "--out", str(tmp_path)]  # fmt: skip
    assert miniature([*asked, "--total-flow-steps", "7"]) == 0
    first = (tmp_path / "result.json").read_bytes()
    result = BenchmarkResult.read(tmp_path / "result.json")
    assert result.run.endswith(f"best within 7 flow steps by detector, {UPPER_BOUND}")
    assert result.also["num_flow_steps"].value == 6 and result.also["num_candidates"].value == 3
    assert {n for n in result.also if n.startswith("within")} == {
        f"within {steps} flow steps/correct" for steps in (2, 4, 6)
    }
    # The judge misses nothing that is there.
    assert result.also["search/any correct"].value == result.overall.value
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert all(len(line["candidates"]) == 3 for line in lines)
    assert miniature([*asked, "--total-flow-steps", "7", "--batch-size", "1"]) == 0
    assert miniature(["--score-only", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "result.json").read_bytes() == first
    with pytest.raises(ValueError, match="with another search"):
        miniature([*asked, "--best-of", "3"])


def test_a_search_over_stages_counts_every_stage_of_every_candidate(tmp_path):
    assert miniature(
        ["--checkpoint", "miniature:base", "--flow-steps", "2", "--tasks", "two_object",
         "--num-per-task", "2", "--mode", "staged", "--planner", "scripted", "--sketcher",
         "editing", "--best-of", "2", "--verifier", "inspector", "weights=miniature:staged",
         "--out", str(tmp_path)]
    ) == 0  # fmt: skip
    result = BenchmarkResult.read(tmp_path / "result.json")
    assert UPPER_BOUND not in result.run
    assert result.also["num_flow_steps"].value >= 8
    assert result.also["planned"].value == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--verifier", "hps"], "add --best-of"),
        (["--best-of", "2", "--total-flow-steps", "9"], "give one of them"),
    ],
)
def test_options_of_a_search_that_do_not_go_together_are_refused(tmp_path, words, said):
    with pytest.raises(Exception, match=said):
        miniature(["--checkpoint", "miniature:fresh", "--out", str(tmp_path), *words])


def test_benchmarks_that_name_no_objects_take_no_detector(tmp_path):
    write_prompts(tmp_path, "verified")
    with pytest.raises(ValueError, match="wise-verified does not say what objects"):
        staged_eval(
            ["generate", "--benchmark", "wise-verified", "--prompts", str(tmp_path),
             "--out", str(tmp_path / "out"), "--best-of", "2", "--generator", "model", *QUICK]
        )  # fmt: skip


def test_a_spent_budget_stops_and_the_same_command_goes_on(tmp_path, capsys):
    lmm = ["lmm.model=shapes-lmm-1", "lmm.usd_per_million_input_tokens=1000"]
    asked = ["--checkpoint", "miniature:fresh", "--flow-steps", "2", "--tasks", "colors",
             "--num-per-task", "2", "--mode", "one-shot", "--out", str(tmp_path), "--best-of", "2",
             "--verifier", "lmm", *lmm]  # fmt: skip
    assert miniature([*asked, "budget_usd=0.001"]) == exit_codes.STOPPED
    assert "stopped: " in capsys.readouterr().out
    assert miniature([*asked, "budget_usd=100"]) == 0
    assert UPPER_BOUND in BenchmarkResult.read(tmp_path / "result.json").run
