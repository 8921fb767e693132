"""What a run shows elsewhere: TensorBoard, Weights & Biases; where neither is wanted, nothing."""

import json
import os
import signal
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from training import World, assert_same, build, train

from train.job import Trainer
from train.settings import Log, ScorerSettings, Subset, TrainSettings, ValidationSettings
from train.trackers import TensorBoard, open_trackers, told

HAS_WANDB = find_spec("wandb") is not None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


def settings(world: World, out: Path, *trackers: Any, **changes: Any) -> TrainSettings:
    log = Log(
        every_steps=1,
        trackers=trackers,
        sample_every_steps=2,
        sample_prompts=("a star",),
        sample_flow_steps=1,
    )
    return world.settings(out, log=log, num_steps=4, cache=world.folder / "cache", **changes)


def test_trackers_are_those_asked_for_and_change_nothing(world: World, tmp_path: Path) -> None:
    silent, shown = settings(world, tmp_path / "a"), settings(world, tmp_path / "b", "tensorboard")
    assert_same(train(silent), train(shown))
    assert not (silent.out / "tensorboard").exists() and any((shown.out / "tensorboard").iterdir())
    assert [type(tracker) for tracker in open_trackers(shown, 4)] == [TensorBoard]
    assert open_trackers(silent, 4) == []


def test_a_tracker_named_twice_is_told() -> None:
    with pytest.raises(ValueError, match="name each once"):
        Log(trackers=("tensorboard", "tensorboard"))


@pytest.mark.skipif(HAS_WANDB, reason="the package is installed")
def test_a_tracker_that_is_not_installed_is_told_before_weights_are_read(
    world: World, tmp_path: Path
) -> None:
    job = replace(settings(world, tmp_path, "wandb"), init="nowhere/at-all")
    with pytest.raises(ValueError, match=r"wandb, whose package.*pip install staged\[wandb\]"):
        Trainer(job)


def test_others_are_told_one_word_of_a_command(world: World, tmp_path: Path) -> None:
    """It was told whole, with the keys and addresses in it."""
    words = ("grade", "https://data.example.com/a?sig=hidden", "KEY=hidden", "{checkpoint}")
    scorer = ScorerSettings(command=words)
    validation = ValidationSettings(data=("here",), scorer=scorer)
    job = replace(settings(world, tmp_path), validation=validation)
    facts = told(job)
    assert facts["validation"]["scorer"]["command"] == ["grade", "..."]
    assert "hidden" not in json.dumps(facts) and scorer.command == words


def test_others_are_told_no_query_of_an_address(world: World, tmp_path: Path) -> None:
    address = "https://data.example.com/plans"
    job = replace(
        settings(world, tmp_path),
        data=(Subset(path=f"{address}?sig=hidden"), Subset(path="here/it is?")),
        validation=ValidationSettings(data=(f"{address}/held_out/?sig=hidden#a", "here")),
    )
    facts = told(job)
    assert [subset["path"] for subset in facts["data"]] == [address, "here/it is?"]
    assert facts["validation"]["data"] == [f"{address}/held_out", "here"]
    assert "hidden" not in json.dumps(facts) and facts["num_steps"] == 4
    assert "hidden" in job.data[0].path


def stop_after(job: TrainSettings, steps: int) -> None:
    trainer = Trainer(job)
    real = trainer.train_step

    def train_step(*packs: Any) -> dict[str, float]:
        if trainer.step + 1 == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*packs)

    trainer.train_step = train_step  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()


@pytest.mark.skipif(not HAS_WANDB, reason="needs pip install staged[wandb]")
def test_weights_and_biases_keeps_a_run_offline(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    job = settings(world, tmp_path / "out", "tensorboard", "wandb")
    stop_after(job, 2)
    lines = train(job)["log"]
    first, second = sorted((job.out / "wandb").glob("offline-run-*"))
    name = (job.out / "wandb.id").read_text()
    assert first.name.endswith(name) and second.name.endswith(name)
    kept = [b"".join(path.read_bytes() for path in run.glob("*.wandb")) for run in (first, second)]
    for line in lines:
        [run] = [bytes_ for bytes_ in kept if json.dumps(line["loss"]).encode() in bytes_]
        assert run is kept[line["step"] > 2]
    for run, step in ((first, 2), (second, 4)):
        [picture] = (run / "files" / "media" / "images").iterdir()
        assert picture.name.startswith(f"samples_{step}_")


@pytest.mark.skipif(not HAS_WANDB, reason="needs pip install staged[wandb]")
def test_who_has_no_key_is_told_what_to_do(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb").teardown()  # what it read of the environment before
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(OSError, match=r"WANDB_API_KEY, or WANDB_MODE=offline"):
        train(settings(world, tmp_path / "out", "wandb"))
