"""A data set and a checkpoint of a few kilobytes, runs on them, and ways to end a run badly."""

import importlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import forks
from tiny import CONFIG, picture, plan, sketch, tokenizer

from staged.model import checkpoint
from staged.model.autoencoder import Autoencoder
from staged.model.bagel import Bagel
from staged.shards import ShardWriter
from staged.trajectory import Answer, ImageRef, Inspection, Refinement, Stop, Trajectory
from train.job import Trainer
from train.settings import Log, OptimizerSettings, Subset, TrainSettings

SLOW = pytest.mark.slow
"""Of some cases among others of the same, which `make test` runs."""
TIMING = ("step_s", "tokens_per_s", "data_wait", "tflop_per_s", "memory_gib", "mfu")


def one_shot(seed: int) -> Trajectory:
    steps = (sketch(seed), Stop())
    return Trajectory(prompt=f"a star {seed}", steps=steps, task="one_shot")


def edit(seed: int) -> Trajectory:
    source = ImageRef.from_array(picture(seed, 8, 12))
    steps = (sketch(seed + 1, 8, 12), Stop())
    return Trajectory(prompt="make it blue", inputs=(source,), steps=steps, task="edit")


def understanding(seed: int) -> Trajectory:
    source = ImageRef.from_array(picture(seed))
    steps = (Answer(text=f"a star {seed}"), Stop())
    return Trajectory(prompt="what is it?", inputs=(source,), steps=steps, task="understanding")


def staged(seed: int) -> Trajectory:
    """A wrong plan, a refinement, a wrong sketch, and what is right after them."""
    return Trajectory(
        prompt="a red circle",
        task="staged",
        steps=(
            plan("a blue circle", loss=False),
            Inspection(target="plan", verdict="revise", critique="it is red"),
            Refinement(instruction="make it red"),
            plan("a red circle"),
            sketch(seed, 16, 8, loss=False),
            Inspection(target="sketch", verdict="revise", critique="no circle"),
            Refinement(instruction="draw it"),
            sketch(seed + 1, 16, 8),
            Inspection(target="sketch", verdict="accept", critique="it is there"),
            Stop(),
        ),
    )


def plan_sketch(seed: int) -> Trajectory:
    steps = (plan("a circle"), sketch(seed), plan("a star"), sketch(seed + 1), Stop())
    return Trajectory(prompt="a circle and a star", steps=steps, task="plan_sketch")


ALL_KINDS = (one_shot, edit, understanding, staged, plan_sketch)


@dataclass(frozen=True)
class World:
    """Where a tiny checkpoint and its data lie."""

    folder: Path

    @property
    def init(self) -> Path:
        return self.folder / "init"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def settings(self, out: Path, **changes: Any) -> TrainSettings:
        """A short run that logs every step and saves its state every third."""
        settings = TrainSettings(
            init=str(self.init),
            data=(Subset(path=self.data),),
            out=out,
            num_steps=8,
            pack_tokens=300,
            dtype="float32",
            device="cpu",
            num_threads=1,
            checkpoint_every_steps=3,
            optimizer=OptimizerSettings(lr=3e-3, warmup_steps=3, weight_decay=0.01, ema_decay=0.9),
            log=Log(every_steps=1),
        )
        return replace(settings, **changes)


def build(folder: Path, trajectories: Sequence[Trajectory] | None = None) -> World:
    """Write the checkpoint and the data: by default two of every kind."""
    world = World(folder)
    torch.manual_seed(0)
    model, autoencoder = Bagel(CONFIG), Autoencoder(CONFIG.autoencoder)
    model.init_weights()
    checkpoint.save(world.init, model=model, autoencoder=autoencoder, tokenizer=tokenizer())
    if trajectories is None:
        trajectories = [kind(seed) for seed in (0, 10) for kind in ALL_KINDS]
    write_data(world.data, trajectories)
    return world


def write_data(folder: Path, trajectories: Sequence[Trajectory]) -> Path:
    with ShardWriter(folder, title="tiny", max_samples=4) as writer:
        for number, trajectory in enumerate(trajectories):
            writer.write(f"s{number:03d}", trajectory)
    return folder


def train(settings: TrainSettings) -> dict[str, Any]:
    """Run to the end, from wherever the run stands, and return all that it made."""
    Trainer(settings).run()
    return made(settings.out)


def made(out: Path) -> dict[str, Any]:
    """Final weights, moments and averages, the checkpoint's files, and the log without rates."""
    [*_, newest] = sorted((out / "state").iterdir())
    results: dict[str, Any] = {}
    folder = out / "checkpoint"
    made_last = folder if folder.is_dir() else out / "adapter"
    for path in sorted((*newest.iterdir(), *made_last.iterdir())):
        results[path.name] = path.read_bytes()
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    results["log"] = [{k: v for k, v in line.items() if k not in TIMING} for line in lines]
    return results


def assert_same(results: dict[str, Any], expected: dict[str, Any]) -> None:
    """Bit for bit, without printing megabytes where they differ."""
    assert results.keys() == expected.keys()
    assert [name for name in results if results[name] != expected[name]] == []


# --- other processes -----------------------------------------------------------------------------


def start(function: Callable[..., None], *arguments: Any) -> Any:
    """Run a function in a process forked from a server that has imported everything."""
    process = forks.Process(target=function, args=arguments)
    process.start()
    return process


def run_quietly(settings: TrainSettings) -> None:
    Trainer(settings).run()


def run_and_die(settings: TrainSettings, target: str, call: int, when: str) -> None:
    """Train until a moment of `die_at`."""
    die_at(target, call, when)
    Trainer(settings).run()


def moment(target: str) -> tuple[Any, str]:
    """What holds a function, and its name there, of `module:name` or `module:Class.name`."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    return owner, name


def die_at(target: str, call: int, when: str) -> None:
    """End as by `kill -9` when a function is called for the given time.

    Args:
        target: `module:name` or `module:Class.name`.
        call: Which call, counted from 1.
        when: `before` the call, `after` it, or `half`: after it, with half of the file at the
            call's last path left (for `write_safetensors`, of the file written).
    """
    owner, name = moment(target)
    real, calls = getattr(owner, name), 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < call:
            return real(*args, **kwargs)
        if when != "before":
            real(*args, **kwargs)
        if when == "half":
            file = next(a for a in args if isinstance(a, Path))
            os.truncate(file, file.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    setattr(owner, name, deadly)


def run_and_die_while_removing(settings: TrainSettings) -> None:
    """End while the oldest state is being removed, its file gone and its folder not."""
    real = shutil.rmtree

    def deadly(path: Path, *args: Any, **kwargs: Any) -> None:
        if Path(path).name.isdecimal():
            for file in Path(path).iterdir():
                file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, *args, **kwargs)

    shutil.rmtree = deadly
    Trainer(settings).run()
