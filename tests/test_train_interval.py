"""Lines of the log are means over the steps since the line before, however a run is interrupted."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from rank_processes import wait_for_all
from training import TIMING, World, build, start, train

from train.interval import IntervalMeans
from train.job import Trainer
from train.packing import Pack
from train.settings import Log, TrainSettings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


def test_a_figure_is_averaged_over_the_steps_that_have_it() -> None:
    means = IntervalMeans()
    means.add({"loss": 1.0, "ce/edit": 4.0, "lr": 0.1, "tokens_per_s": 5.0})
    means.add({"loss": 2.0, "lr": 0.2, "tokens_per_s": 7.0})
    assert means.take() == {"loss": 1.5, "ce/edit": 4.0, "lr": 0.2, "tokens_per_s": 7.0}
    means.add({"loss": 5.0})
    assert means.take() == {"loss": 5.0}
    assert means.take() == {}


def test_what_is_added_up_goes_on_digit_by_digit() -> None:
    values = [0.1, 0.7, 1 / 3, 2e-17]
    whole, parted, resumed = IntervalMeans(), IntervalMeans(), IntervalMeans()
    for value in values:
        whole.add({"loss": value})
    for value in values[:2]:
        parted.add({"loss": value})
    resumed.resume(parted.state())
    for value in values[2:]:
        resumed.add({"loss": value})
    assert resumed.take() == whole.take()
    resumed.resume(None)
    assert resumed.take() == {}


@pytest.mark.parametrize(
    "state",
    ["", "[]", "[1, 2]", '[{"a": 1}, {}]', '[{"a": 1}, {"a": 0}]', '[{"a": "x"}, {"a": 1}]'],
)
def test_a_damaged_state_is_told(state: str) -> None:
    with pytest.raises(ValueError, match="the state of the log cannot be read"):
        IntervalMeans().resume(state)


def die_in_the_middle(settings: TrainSettings) -> None:
    """At the sixth step, two steps after a state, three after a line of the log."""
    trainer = Trainer(settings)
    real = trainer.train_step

    def train_step(*packs: Pack) -> dict[str, float]:
        if trainer.step == 5:
            trainer.state.finish()  # it is written while the run goes on
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*packs)

    trainer.train_step = train_step  # type: ignore[method-assign]
    trainer.run()


def test_a_run_killed_between_lines_writes_the_lines_that_it_would_have(
    world: World, tmp_path: Path
) -> None:
    log = Log(every_steps=3)
    single = world.settings(tmp_path / "single", cache=world.folder / "cache")
    steps = train(single)["log"]
    whole = replace(single, out=tmp_path / "whole", log=log, checkpoint_every_steps=4)
    lines = train(whole)["log"]
    assert [line["step"] for line in lines] == [3, 6, 8]
    for line, group in zip(lines, (steps[:3], steps[3:6], steps[6:]), strict=True):
        for name in ("loss", "ce", "mse", "grad_norm"):
            mean = sum(step[name] for step in group) / len(group)
            assert line[name] == pytest.approx(mean, rel=1e-12)
        assert line["lr"] == group[-1]["lr"]
    killed = replace(whole, out=tmp_path / "killed")
    process = start(die_in_the_middle, killed)
    wait_for_all([process])
    assert process.exitcode == -signal.SIGKILL
    assert [path.name for path in (killed.out / "state").iterdir()] == ["00000004"]
    assert train(killed)["log"] == lines
    written = [json.loads(line) for line in (killed.out / "log.jsonl").read_text().splitlines()]
    assert all({*TIMING} - {"mfu"} < line.keys() for line in written)
