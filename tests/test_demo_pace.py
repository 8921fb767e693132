"""The demo does as much as fits into its time, on fast machines and slow ones."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from staged.cli.demo.pace import PER_TASK, PROMPTS, STEPS, Pace, begin, keep
from staged.cli.demo.speed import Speed, measure, threads
from staged.settings import load
from train.settings import TrainSettings

LAPTOP = Speed(
    prompt_s=0.05, image_s=0.006, step_s=0.9, picture_s=0.2, train_threads=2, draw_threads=1
)
"""About what two AVX2 cores do with one of them busy."""


def slower(factor: float) -> Speed:
    times = ("prompt_s", "image_s", "step_s", "picture_s")
    return replace(LAPTOP, **{name: getattr(LAPTOP, name) * factor for name in times})


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5, 2.0])
def test_all_of_it_fits_into_the_time(factor: float) -> None:
    for minutes in (8, 12):
        planned = Pace(speed=slower(factor)).planned(60 * minutes)
        assert planned.seconds() <= 60 * minutes + 1
        assert planned.seconds() > 40 * minutes or planned.num_steps == STEPS[1]


def test_a_fast_machine_does_all_there_is_and_a_slow_one_the_least_of_each() -> None:
    fast, slow = (Pace(speed=slower(factor)).planned(480) for factor in (0.01, 100))
    assert (fast.num_prompts, fast.num_steps, fast.num_per_task) == (
        PROMPTS[1],
        STEPS[1],
        PER_TASK[1],
    )
    assert (slow.num_prompts, slow.num_steps, slow.num_per_task) == (
        PROMPTS[0],
        STEPS[0],
        PER_TASK[0],
    )


def test_time_that_was_lost_shortens_what_is_still_to_be_decided_and_nothing_else() -> None:
    pace = Pace(speed=LAPTOP).decided("num_prompts", 480)
    assert pace.num_prompts is not None and pace.num_steps is None
    in_time, late = (pace.decided("num_steps", left) for left in (430, 200))
    assert in_time.num_steps and late.num_steps and in_time.num_steps > late.num_steps
    assert in_time.num_prompts == late.num_prompts == pace.num_prompts
    assert late.decided("num_steps", 10_000) == late


def test_what_was_decided_binds_a_run_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "out" / "pace.json"
    pace = Pace(speed=LAPTOP).decided("num_prompts", 480).decided("num_steps", 300)
    keep(path, pace)
    assert begin(path, "miniature:fresh") == pace
    sizes = pace.sizes()
    assert sizes.data == (f"prompts.count={pace.num_prompts}",)
    training = load(TrainSettings, Path("configs/shapes/demo_train.yaml"), sizes.train)
    assert training.num_steps == pace.num_steps and training.num_threads == 2
    assert 1 <= training.optimizer.warmup_steps < training.num_steps
    path.write_text(path.read_text().replace("0.9", "-1"))
    with pytest.raises(ValueError, match=r"pace.json.*step_s"):
        begin(path, "miniature:fresh")


def test_the_machine_is_measured_by_doing_a_little_of_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("staged.cli.demo.speed._NUM_PROMPTS", 4)  # of 24
    before = torch.get_num_threads()
    speed = measure("miniature:fresh")
    assert capsys.readouterr() == ("", "")
    assert torch.get_num_threads() == before
    assert {speed.train_threads, speed.draw_threads} <= {1, before}
    assert "training steps/s" in speed.in_words()


def test_threads_are_as_before_whatever_happens() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before
