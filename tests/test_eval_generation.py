"""Generating for a benchmark: the same bytes however it is run, and nothing that passes for it."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

from eval.__main__ import main as staged_eval
from eval.downloads import file_sha256
from eval.generation.benchmarks import BENCHMARKS
from eval.generation.provenance import made
from eval.generation.run import generate
from eval.generation.store import Store
from eval.geneval.folders import read_folders
from eval.pictures import read_pictures
from eval.results import BenchmarkResult
from staged import images
from staged.backends.generators.generator import DrawnImage, NoImage
from staged.jobs.rank import Rank
from staged.trajectory_folder import load_trajectory

KINDS = ("star", "ring", "heart", "cross", "circle")


def prompts_file(path, order=range(5)):
    records = [
        {"tag": "single_object", "include": [{"class": kind, "count": 1}],
         "prompt": f"a photo of a {kind}"}
        for kind in KINDS
    ]  # fmt: skip
    path.write_text("".join(json.dumps(records[i]) + "\n" for i in order))
    return path


class Company:
    """Draws pixels that hang on the whole batch, as the last digits of a model's do."""

    name, alone = "company", False

    def __init__(self, *, failing=(), killed_after=None):
        self.failing, self.killed_after, self.drawn = failing, killed_after, 0

    def identity(self):
        return {"weights": "none"}

    def draw(self, samples):
        together = hashlib.sha256(repr([s.seed for s in samples]).encode()).digest()
        for sample in samples:
            if self.drawn == self.killed_after:
                os.kill(os.getpid(), signal.SIGKILL)
            self.drawn += 1
            rng = np.random.default_rng([sample.seed, *together])
            if sample.prompt in self.failing:
                yield sample, NoImage(reason="refused", detail="no", final=sample.image == 0)
            else:
                yield sample, DrawnImage(pixels=rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))


def run(folder, prompts, generator=None, *, rank=None, batch=2, number=3, decides=None):
    rank = rank or Rank()
    benchmark = BENCHMARKS["geneval"](str(prompts))
    samples = benchmark.samples(images_per_prompt=number)
    benchmark.prepare(folder)
    with Store(folder, rank) as store:
        store.claim(decides or {"prompts": benchmark.sha256}, {})
        return generate(samples, generator or Company(), store, batch=batch, rank=rank)


def tree(folder):
    """Every file but the logs, which have times."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if "log-" not in p.name}


@pytest.fixture
def prompts(tmp_path):
    return prompts_file(tmp_path / "prompts.jsonl")


@pytest.fixture
def whole(tmp_path, prompts):
    run(tmp_path / "whole", prompts)
    return tmp_path / "whole"


def test_images_lie_where_the_scorer_reads_them(whole):
    folders = list(read_folders(whole))
    assert [folder.prompt.text for folder in folders] == [f"a photo of a {k}" for k in KINDS]
    assert all([index for index, _ in folder.images] == [0, 1, 2] for folder in folders)
    lines = [json.loads(t) for t in (whole / "samples.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines[:4]] == [
        *(f"00000/samples/0000{image}.png" for image in range(3)), "00001/samples/00000.png"
    ]  # fmt: skip
    assert len({line["seed"] for line in lines}) == 15
    for line in lines:
        content = (whole / line["image"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == line["sha256"]


def test_three_processes_in_any_order_leave_what_one_leaves(tmp_path, prompts, whole):
    done = [
        run(tmp_path / "three", prompts, rank=Rank(number=rank, world_size=3)) for rank in (2, 0, 1)
    ]
    assert [each.unscored for each in done] == [None, None, 0]
    assert sum(each.drawn for each in done) == 15
    assert tree(tmp_path / "three") == tree(whole)


def half_of_a_dead_writer(path):
    """Name of a half of `path` whose writer is dead."""
    code = "import sys, pathlib; from staged.jobs.files import temporary as t; "
    code += "print(t(pathlib.Path(sys.argv[1])))"
    return subprocess.check_output([sys.executable, "-c", code, str(path)], text=True).strip()


@pytest.mark.parametrize("after", [0, 1, 8])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, prompts, whole, after):
    folder = tmp_path / "killed"
    child = os.fork()
    if not child:
        run(folder, prompts, Company(killed_after=after))
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert len(list(folder.rglob("*.png"))) == after
    # And what a kill at other moments leaves: half a line, a line without an image, half an image.
    log = folder / "generation/log-0-of-1.jsonl"
    log.write_bytes(log.read_bytes() + b'{"image":"00')
    for path in list(folder.rglob("*.png"))[:1]:
        path.rename(half_of_a_dead_writer(path))
    assert run(folder, prompts).unscored == 0
    assert tree(folder) == tree(whole)


def test_a_prompt_has_its_images_wherever_it_stands_in_the_file(tmp_path, whole):
    order = random.Random(1).sample(range(5), 5)
    shuffled = prompts_file(tmp_path / "shuffled.jsonl", order)
    run(tmp_path / "shuffled", shuffled, rank=Rank(number=0, world_size=2))
    run(tmp_path / "shuffled", shuffled, rank=Rank(number=1, world_size=2))
    for place, original in enumerate(order):
        for image in range(3):
            name = f"samples/{image:05}.png"
            ours = tmp_path / "shuffled" / f"{place:05}" / name
            assert ours.read_bytes() == (whole / f"{original:05}" / name).read_bytes()


def test_more_images_are_added_to_those_that_are_there(tmp_path, prompts, whole):
    assert run(tmp_path / "more", prompts, number=1).drawn == 5
    done = run(tmp_path / "more", prompts)
    assert (done.drawn, done.there) == (10, 5)
    assert tree(tmp_path / "more") == tree(whole)


def test_a_failure_is_kept_and_only_one_for_good_is_not_tried_again(tmp_path, prompts):
    folder, refusing = tmp_path / "images", Company(failing=["a photo of a ring"])
    done = run(folder, prompts, refusing, number=2)
    assert (done.drawn, dict(done.failures), done.unscored) == (8, {"refused": 2}, 2)
    lines = [json.loads(t) for t in (folder / "samples.jsonl").read_text().splitlines()]
    assert [(i, line["reason"]) for i, line in enumerate(lines) if "reason" in line] == [
        (2, "refused"), (3, "refused")
    ]  # fmt: skip
    done = run(folder, prompts, number=2)
    assert (done.drawn, done.there, dict(done.failures)) == (1, 8, {"refused": 1})
    assert not (folder / "00001/samples/00000.png").exists()


def test_pictures_that_something_else_decided_are_refused(tmp_path, prompts, whole):
    with pytest.raises(ValueError, match=r"another prompts \([0-9a-f]+, not x\).*another --out"):
        run(whole, prompts, decides={"prompts": "x"})


def test_a_damaged_image_is_refused_until_it_is_removed(whole, prompts):
    before, victim = tree(whole), whole / "00003/samples/00001.png"
    victim.write_bytes(victim.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"00001\.png is damaged or was changed"):
        run(whole, prompts)
    victim.unlink()
    assert run(whole, prompts).drawn == 1
    assert tree(whole) == before


def test_an_image_from_elsewhere_does_not_pass_for_a_generated_one(tmp_path, prompts):
    stranger = tmp_path / "images/00002/samples/00000.png"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(images.encode_png(np.zeros((4, 4, 3), np.uint8)))
    with pytest.raises(ValueError, match="was not generated here"):
        run(tmp_path / "images", prompts)


def test_a_damaged_log_is_named_with_its_line(whole, prompts):
    log = whole / "generation/log-0-of-1.jsonl"
    log.write_bytes(b'{"image": 1}\n' + log.read_bytes())
    with pytest.raises(ValueError, match=r"log-0-of-1.jsonl:1"):
        run(whole, prompts)


def test_two_processes_of_one_rank_do_not_work_at_once(tmp_path):
    with (
        Store(tmp_path, Rank()),
        pytest.raises(ValueError, match="in use: another process is generating there as rank 0"),
        Store(tmp_path, Rank()),
    ):
        pass


def generate_with(tmp_path, prompts, *more, out="images", benchmark="geneval"):
    return staged_eval(
        ["generate", "--benchmark", benchmark, "--prompts", str(prompts), "--out",
         str(tmp_path / out), *more]
    )  # fmt: skip


def test_a_checkpoint_is_generated_with_detected_in_and_scored_alike_in_three_processes(
    tmp_path, prompts, monkeypatch, capsys
):
    model = ["--images-per-prompt", "2", "--generator", "model",
             "checkpoint=miniature:fresh", "num_flow_steps=1"]  # fmt: skip
    assert generate_with(tmp_path, prompts, *model, out="one") == 0
    assert "drew 10 images, 0 were there" in capsys.readouterr().out
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in "102":
        monkeypatch.setenv("RANK", rank)
        size = ["--batch-size", f"{int(rank) + 1}"]  # which decides nothing
        assert generate_with(tmp_path, prompts, *size, *model, out="three") == 0
    assert "drew 3 images, 0 were there (process 2 of 3)" in capsys.readouterr().out
    assert tree(tmp_path / "one") == tree(tmp_path / "three")
    results = []
    for name in ("one", "three"):
        found, result = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.json"
        detect = ["detect", str(tmp_path / name), "--detector", "miniature", "--out", str(found)]
        shares = [["--rank", "0", "--world-size", "1"]] if name == "one" else [[]] * 3
        for rank, share in enumerate(shares):
            monkeypatch.setenv("RANK", str(rank))
            assert staged_eval([*detect, *share]) == 0
        score = ["geneval", "--detections", str(found), "--prompts", str(prompts),
                 "--images-per-prompt", "2", "--generated", str(tmp_path / name),
                 "--result", str(result), "--out", str(tmp_path / "scored.jsonl")]  # fmt: skip
        assert staged_eval(score) == 0
        results.append(result.read_bytes())
    assert results[0] == results[1]
    result = BenchmarkResult.read(tmp_path / "one.json")
    assert result.run == "miniature:fresh in one shot"
    assert result.provenance["generated"]["decides"]["first.num_flow_steps"] == 1
    with pytest.raises(ValueError, match=r"first\.num_flow_steps \(1, not 2\)"):
        generate_with(tmp_path, prompts, *model[:-1], "num_flow_steps=2", out="one")
    with pytest.raises(ValueError, match=r"another seed \(0, not 1\)"):
        generate_with(tmp_path, prompts, "--seed", "1", *model, out="one")


def test_a_checkpoint_that_draws_in_stages_keeps_its_steps(tmp_path):
    data = prompts_file(tmp_path / "prompts.jsonl", order=[0])
    scripted = [f"{role}=scripted" for role in ("planner", "inspector", "sketcher")]
    model = ["--images-per-prompt", "1", "--generator", "model", "checkpoint=miniature:fresh",
             "mode=staged", *scripted]  # fmt: skip
    assert generate_with(tmp_path, data, *model) == 0
    trajectory = load_trajectory(tmp_path / "images/generation/steps/00000-samples-00000")
    assert trajectory.complete and trajectory.last_plan is not None
    image = (tmp_path / "images/00000/samples/00000.png").read_bytes()
    assert (images.decode(image) == trajectory.last_sketch.image.array()).all()


def test_scores_of_other_images_do_not_pass_for_those_of_a_folder(tmp_path, whole):
    lines = [json.loads(text) for text in (whole / "samples.jsonl").read_text().splitlines()]
    scores = tmp_path / "scores.jsonl"
    scores.write_text("".join(json.dumps({"sha256": line["sha256"]}) + "\n" for line in lines))
    assert made(whole, [scores]).provenance["generated"]["samples_sha256"]
    scores.write_text(scores.read_text() + json.dumps({"sha256": "0" * 64}) + "\n")
    with pytest.raises(ValueError, match="1 scored images are not of"):
        made(whole, [scores])
    scores.write_text('{"prompt_id": 1, "score": 1}\n')
    with pytest.raises(ValueError, match="no line has the SHA-256"):
        made(whole, [scores])
    (whole / "samples.jsonl").unlink()
    with pytest.raises(ValueError, match="once every sample was tried"):
        made(whole, [scores])


def test_a_wrong_prompts_file_is_named_with_its_line(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"tag": "single_object", "include": [], "prompt": "a star"}\n')
    folder = ["--generator", "folder", f"images={tmp_path}", "pattern={number}"]
    with pytest.raises(ValueError, match=r"bad.jsonl:1.include: empty"):
        generate_with(tmp_path, bad, *folder)
    prompts = prompts_file(tmp_path / "prompts.jsonl")
    with pytest.raises(SystemExit):
        generate_with(tmp_path, prompts, "--images-per-prompt", "0", *folder)
    with pytest.raises(ValueError, match="draws each image alone"):
        generate_with(tmp_path, prompts, "--batch-size", "2", *folder)
    assert not (tmp_path / "images").exists()


def test_geneval_2_is_generated_into_what_its_questions_and_the_rewards_read(tmp_path):
    data = tmp_path / "data.jsonl"
    record = {"atom_count": 1, "vqa_list": [["Is it a star?", "yes"]], "skills": ["object"]}
    texts = ("a star", "a ring")
    data.write_text("".join(json.dumps({"prompt": text, **record}) + "\n" for text in texts))
    made = tmp_path / "made"
    made.mkdir()
    for place in range(2):
        (made / f"{place}.png").write_bytes(images.encode_png(np.full((4, 4, 3), place, np.uint8)))
    folder = ["--generator", "folder", f"images={made}", "pattern={prompt}"]
    (made / "1.png").rename(tmp_path / "later.png")
    assert generate_with(tmp_path, data, *folder, benchmark="geneval2") == 1
    assert generate_with(tmp_path, data, "--allow-unscored", *folder, benchmark="geneval2") == 0
    (tmp_path / "later.png").rename(made / "1.png")
    assert generate_with(tmp_path, data, *folder, benchmark="geneval2") == 0
    out = tmp_path / "images"
    for source in (out, out / "samples.jsonl"):
        pictures = read_pictures(source)
        assert [picture.prompt for picture in pictures] == list(texts)
        shades = [images.decode(picture.path.read_bytes())[0, 0, 0] for picture in pictures]
        assert shades == [0, 1]
    answers, result = tmp_path / "answers.jsonl", tmp_path / "result.json"
    lines = [
        {"prompt_id": place, "probabilities": [0.5], "sha256": file_sha256(picture.path)}
        for place, picture in enumerate(read_pictures(out))
    ]
    contents = []
    for ordered in (lines, lines[::-1]):
        answers.write_text("".join(json.dumps(line) + "\n" for line in ordered))
        aggregate = ["geneval2", "--answers", str(answers), "--prompts", str(data)]
        assert staged_eval([*aggregate, "--out", str(result), "--generated", str(out)]) == 0
        contents.append(result.read_bytes())
    assert contents[0] == contents[1]
    assert BenchmarkResult.read(result).run == str(made)
    assert (
        BenchmarkResult.read(result).provenance["generated"]["decides"]["benchmark"] == "geneval2"
    )
    data.write_text(data.read_text().replace("a ring", "a cross"))
    with pytest.raises(ValueError, match="holds another prompt than 'a cross'"):
        generate_with(tmp_path, data, *folder, benchmark="geneval2")
