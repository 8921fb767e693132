"""The miniature suite: scripted players, a fresh model, and trajectories made by hand."""

import json
import multiprocessing
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from eval.miniature import main
from eval.miniature.draw import draw
from eval.miniature.line import read_scores
from eval.miniature.report import result_of
from eval.miniature.score import score
from eval.miniature.settings import MiniatureSample, MiniatureSettings, samples, short_tasks
from eval.miniature.store import SAMPLES, BatchStore
from eval.results import BenchmarkResult
from staged.images import encode_png
from staged.shapes.__main__ import main as shapes
from staged.shapes.language.prompts import read_prompt
from staged.shapes.tasks import TASKS, Split, Task, TaskPrompt
from staged.shapes.world.render import render
from staged.shapes.world.scene import Scene, Shape
from staged.trajectory import (
    ImageRef,
    Sketch,
    Stop,
    Trajectory,
)

QUICK = ["--checkpoint", "miniature:fresh", "--flow-steps", "2", "--tasks", "colors", "counting"]
SCRIPTED = [
    *("--checkpoint", "miniature:fresh", "--mode", "staged"),
    *("--planner", "scripted", "--inspector", "scripted", "--sketcher", "scripted"),
]


def run(folder: Path, *arguments: str) -> BenchmarkResult:
    assert main(["--out", str(folder), *arguments]) == 0
    return BenchmarkResult.read(folder / "result.json")


def test_scripted_players_draw_what_the_detector_wants(tmp_path: Path) -> None:
    result = run(tmp_path, *SCRIPTED, "--tasks", "all", "--num-per-task", "3")
    assert result.overall.value is not None and result.overall.value > 0.9
    assert result.also["plan/right"].value == 1
    assert result.also["num_flow_steps"].value == 0
    assert result.also["num_sketches"].value > 1
    assert result.overall.unscored == 0
    # Everything that is estimated can be again, from the lines alone.
    lines = tuple(read_scores(tmp_path / SAMPLES))
    again = result_of(BatchStore(tmp_path).record(), lines)
    assert again.as_dict() == result.as_dict()


def test_a_fresh_model_draws_nothing_that_counts(tmp_path: Path) -> None:
    result = run(tmp_path, *QUICK, "--num-per-task", "3")
    assert result.overall.value is not None and result.overall.value < 0.4
    assert result.also["num_flow_steps"].value == 2
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert len(lines) == result.overall.n
    assert all(line["reasons"] for line in lines if not line["correct"])


def test_the_same_command_draws_nothing_anew_and_leaves_the_same_bytes(tmp_path: Path) -> None:
    run(tmp_path, *QUICK, "--num-per-task", "3", "--batch-size", "2")
    first = (tmp_path / "result.json").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "drawn").rglob("*.tar")}
    run(tmp_path, *QUICK, "--num-per-task", "3", "--batch-size", "5")
    assert (tmp_path / "result.json").read_bytes() == first
    run(tmp_path, "--score-only")
    assert (tmp_path / "result.json").read_bytes() == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "drawn").rglob("*.tar")} == times


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_prompt_is_drawn_as_often_as_any_other(split: Split) -> None:
    """Counting has four held-out prompts; each used to be drawn ten times to fill up."""
    settings = MiniatureSettings(
        checkpoint="", tasks=TASKS, num_per_task=40, images_per_prompt=2, split=split
    )
    drawn = Counter(sample.prompt.text for sample in samples(settings))
    assert set(drawn.values()) == {2}
    short = short_tasks(settings)
    assert len(drawn) == 40 * (len(TASKS) - len(short)) + sum(short.values())
    if split == "test":
        assert short == {"single_object": 12, "counting": 4, "colors": 14} and len(drawn) == 230
    assert len({sample.seed for sample in samples(settings)}) == drawn.total()


def test_tasks_that_run_out_of_prompts_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, *QUICK, "--num-per-task", "6")
    assert "of 6 asked for: counting 4;" in capsys.readouterr().out


def test_pictures_do_not_depend_on_batches_nor_on_interruptions(tmp_path: Path) -> None:
    settings = MiniatureSettings(
        checkpoint="miniature:fresh",
        tasks=("colors",),
        num_per_task=5,
        num_flow_steps=2,
        dtype="float32",
    )
    wanted = samples(settings)
    whole, parts = BatchStore(tmp_path / "whole"), BatchStore(tmp_path / "parts")
    draw(settings, wanted, whole, batch_size=5)
    draw(settings, wanted[3:], parts, batch_size=1)
    leftover = tmp_path / "parts" / "drawn" / "000002"
    leftover.mkdir()  # a batch that was killed
    (leftover / ".shard-000000.tar.tmp").write_bytes(b"half")
    assert draw(settings, wanted, parts, batch_size=2) == 3
    ours, theirs = whole.trajectories(), parts.trajectories()
    assert ours.keys() == theirs.keys() == {sample.key for sample in wanted}
    for key in ours:
        a, b = (t[key].images[0].array().astype(int) for t in (ours, theirs))
        assert np.abs(a - b).max() <= 1


def _add(folder: Path, number: int) -> None:
    store, png = BatchStore(folder), encode_png(np.zeros((8, 8, 3), np.uint8))
    for batch in range(20):
        drawn = Trajectory(prompt="p", steps=(Sketch(image=ImageRef(png=png)),))
        store.add([(f"{batch:06d}", drawn)], name=f"{batch:06d}", seconds=float(number))


def test_processes_that_draw_the_same_batch_leave_it_once(tmp_path: Path) -> None:
    (tmp_path / "drawn").mkdir()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add, args=(tmp_path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(BatchStore(tmp_path).trajectories()) == 20
    assert len(list((tmp_path / "drawn").iterdir())) == 20


def test_asking_for_more_keeps_the_samples_that_were_there() -> None:
    few = MiniatureSettings(checkpoint="", num_per_task=4, tasks=("colors", "position"))
    more = MiniatureSettings(checkpoint="", num_per_task=9, tasks=("position", "colors"))
    there = {sample.key: sample for sample in samples(more)}
    assert all(there[sample.key] == sample for sample in samples(few))


def test_a_folder_takes_no_pictures_that_were_drawn_otherwise(tmp_path: Path) -> None:
    run(tmp_path, *QUICK, "--num-per-task", "1")
    with pytest.raises(ValueError, match=r"num_flow_steps \(2, not 3\)"):
        run(tmp_path, *QUICK, "--num-per-task", "1", "--flow-steps", "3")
    with pytest.raises(ValueError, match="split"):
        run(tmp_path, *QUICK, "--num-per-task", "1", "--split", "train")
    with pytest.raises(ValueError, match="nothing was drawn"):
        main(["--out", str(tmp_path / "empty"), "--score-only"])
    with pytest.raises(ValueError, match="takes no num_per_task"):
        main(["--out", str(tmp_path), "--score-only", "--num-per-task", "2"])


EXPLORED = ["--explore", "num_prompts=1", "max_rounds=2"]


def test_prompts_are_explored_for_the_pictures_of_a_cell(tmp_path: Path) -> None:
    few = [*QUICK, "--tasks", "two_object", "--num-per-task", "2"]
    result = run(tmp_path / "whole", *few, *EXPLORED)
    assert result.overall.unscored == 0
    assert result.also["num_candidates"].value == 2
    assert result.also["num_flow_steps"].value == 4, "two drafts of two steps"
    trajectories = BatchStore(tmp_path / "whole").trajectories()
    assert {one.provenance["asked"] for one in trajectories.values()} - {
        one.prompt for one in trajectories.values()
    }, "no other words were tried"
    # Of a batch that was not kept, what its exploration had drawn is there.
    (tmp_path / "killed").mkdir()
    shutil.copytree(tmp_path / "whole/explored", tmp_path / "killed/explored")
    again = run(tmp_path / "killed", *few, *EXPLORED)
    assert again.as_dict() == result.as_dict()
    # More images cut batches anew: what an earlier one explored is no obstacle.
    shutil.rmtree(tmp_path / "killed/drawn")
    more = run(tmp_path / "killed", *few, *EXPLORED, "--images-per-prompt", "2").overall
    assert (more.n, more.unscored) == (4, 0)
    with pytest.raises(ValueError, match="explore"):
        run(tmp_path / "whole", *few)
    with pytest.raises(ValueError, match="leave search and rewrites out"):
        run(tmp_path / "both", *few, *EXPLORED, "--best-of", "2")


def test_prompts_are_drawn_in_other_words_and_scored_by_their_own(tmp_path: Path) -> None:
    few = [*QUICK, "--num-per-task", "2"]
    asked, written = tmp_path / "asked.txt", tmp_path / "written.txt"
    assert shapes(["prompts", "--num-per-task", "2", "--out", str(asked)]) == 0
    prompts = asked.read_text().splitlines()
    shutil.copy(asked, written)
    plain = run(tmp_path / "plain", *few)
    same = run(tmp_path / "same", *few, "--rewrites", str(asked), str(written))
    assert same.estimates == plain.estimates, "its own words are other words"
    # Anything may be written, also what a miniature would refuse from a person.
    written.write_text("".join(f"{prompt}, trending on artstation\n" for prompt in prompts))
    run(tmp_path / "other", *few, "--rewrites", str(asked), str(written))
    for key, one in BatchStore(tmp_path / "other").trajectories().items():
        assert one.prompt in prompts, key
        assert one.provenance["rewritten"] == f"{one.prompt}, trending on artstation"
    with pytest.raises(ValueError, match="another rewrites"):
        run(tmp_path / "same", *few, "--rewrites", str(asked), str(written))
    asked.write_text("a photo of a star\n")
    with pytest.raises(ValueError, match="has 1 prompts and"):
        run(tmp_path / "same", *few, "--rewrites", str(asked), str(written))
    with pytest.raises(ValueError, match=r"lacks \d of \d prompts"):
        run(tmp_path / "same", *few, "--rewrites", str(asked), str(asked))


def test_scoring_again_loads_no_model_code(tmp_path: Path) -> None:
    run(tmp_path, *SCRIPTED, "--num-per-task", "1", "--tasks", "colors")
    code = (
        "import sys; from eval.miniature import main\n"
        f"main(['--out', {str(tmp_path)!r}, '--score-only'])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


CIRCLE = Shape(kind="circle", color="red", size="large", x=14, y=24)
STAR = Shape(kind="star", color="blue", size="large", x=34, y=24)
GREEN = Shape(kind="circle", color="green", size="large", x=14, y=24)


def picture(*shapes: Shape) -> Sketch:
    pixels = render(Scene(shapes=shapes, background=(160, 165, 170)))
    return Sketch(image=ImageRef.from_array(pixels))


def sample(text: str, task: Task = "colors") -> MiniatureSample:
    prompt = TaskPrompt(text=text, task=task, request=read_prompt(text))
    return MiniatureSample(key="colors-0000-000", prompt=prompt, seed=0)


def test_what_is_there_beyond_the_prompt_is_correct_but_not_exact() -> None:
    asked = sample("a photo of a red circle")
    steps = (picture(CIRCLE, STAR), Stop())
    [scored] = score([asked], {asked.key: Trajectory(prompt=asked.prompt.text, steps=steps)})
    assert (scored.correct, scored.exact) == (True, False)
    assert scored.reasons == ("the blue star should not be there",)


def test_what_was_not_drawn_is_unscored_and_not_wrong(tmp_path: Path) -> None:
    run(tmp_path, *SCRIPTED, "--num-per-task", "4", "--tasks", "colors")
    store = BatchStore(tmp_path)
    record, there = store.record(), store.trajectories()
    wanted = samples(record.settings)
    failed = Trajectory(
        prompt=wanted[1].prompt.text, provenance={"failure": "protocol", "cost": {}}
    )
    there |= {wanted[1].key: failed}
    del there[wanted[0].key]
    scored = score(wanted, there)
    assert [item.correct for item in scored[:2]] == [None, None]
    assert scored[1].reasons == ("not drawn: protocol",)
    overall = result_of(record, scored).overall
    assert (overall.value, overall.n, overall.unscored) == (1.0, len(wanted) - 2, 2)


def test_a_prompt_that_is_sampled_differently_now_is_refused() -> None:
    asked = sample("a photo of a red circle")
    drawn = Trajectory(prompt="a photo of a blue star", steps=(picture(STAR), Stop()))
    with pytest.raises(ValueError, match="choose another --out"):
        score([asked], {asked.key: drawn})
