"""What the demo does, each part a call of the command that a user would give."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from staged.cli.demo.sizes import Sizes
from staged.loops.events import Event, Failed, Stopped
from staged.settings import load
from staged.shards import Manifest, read_manifest, read_shards
from staged.trajectory import Trajectory
from staged.trajectory_folder import save_trajectory

if TYPE_CHECKING:
    from eval.miniature.line import SampleScore
    from eval.results import BenchmarkResult
    from eval.statistics import Estimate

DATA_CONFIG = Path("configs/shapes/demo_data.yaml")
TRAIN_CONFIG = Path("configs/shapes/demo_train.yaml")


@dataclass(frozen=True, kw_only=True)
class DemoScore:
    """How one way of drawing fared.

    Attributes:
        label: What to call it.
        result: The numbers.
        scored: Every picture's score.
        trajectories: Every picture, by sample key.
        difference: To the first one that was scored, on the same prompts; None for that one.
    """

    label: str
    result: BenchmarkResult
    scored: Sequence[SampleScore]
    trajectories: Mapping[str, Trajectory]
    difference: Estimate | None = None


def build_data(folder: Path, sizes: Sizes) -> Manifest:
    """`staged data plan-sketch`, unless the folder holds the finished data set already."""
    from data_pipelines.plan_sketch.job import run_job
    from data_pipelines.plan_sketch.settings import PlanSketchSettings

    run_job(load(PlanSketchSettings, DATA_CONFIG, sizes.data), folder)
    return read_manifest(folder)


def examples(folder: Path, number: int) -> list[Trajectory]:
    """The first trajectories of the data set, those with a refused sketch in front."""
    found = [sample.trajectory for sample in read_shards(folder)]
    found.sort(key=lambda trajectory: "revise" not in _verdicts(trajectory))
    return found[:number]


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """A fine-tune that came to its end, or to the end of its time.

    Attributes:
        checkpoint: Folder of the model.
        num_steps: Steps that it was trained for.
        step_s: Seconds that each took; None where nothing was left to train.
    """

    checkpoint: Path
    num_steps: int
    step_s: float | None = None


def fine_tune(base: str, data: Path, folder: Path, sizes: Sizes) -> FineTuned:
    """`staged train`; goes on where it was interrupted."""
    from train.job import Trainer
    from train.settings import Subset, TrainSettings

    settings = load(TrainSettings, TRAIN_CONFIG, sizes.train)
    settings = replace(settings, init=base, data=(Subset(path=str(data)),), out=folder)
    checkpoint = folder / "checkpoint"
    done = folder / "state" / f"{settings.num_steps:08d}"
    if done.is_dir() and checkpoint.is_dir():
        return FineTuned(checkpoint=checkpoint, num_steps=settings.num_steps)
    trainer = Trainer(settings)
    before, began = trainer.step, time.monotonic()
    trainer.run()
    took, steps = time.monotonic() - began, trainer.step - before
    return FineTuned(
        checkpoint=checkpoint, num_steps=trainer.step, step_s=took / steps if steps else None
    )


def draw(checkpoint: str, folder: Path, sizes: Sizes) -> list[Trajectory]:
    """`staged generate`, one prompt after another, each step printed as it comes."""
    from staged.generate.model import DrawingModel
    from staged.generate.settings import DrawSettings
    from staged.generate.telling import describe, looked_at

    settings = DrawSettings(checkpoint=checkpoint, num_flow_steps=sizes.num_flow_steps)
    loop = DrawingModel(settings).loop(batch_size=1)
    ended: list[Trajectory] = []

    def tell(event: Event) -> None:
        event = looked_at(event)
        if isinstance(event, Stopped | Failed):
            ended.append(event.trajectory)
        if said := describe(event):
            print(textwrap.indent(said, "    "), flush=True)

    for number, prompt in enumerate(sizes.prompts):
        print(f"\n  {prompt}")
        loop.run([prompt], [0], tell)
        ended[number] = save_trajectory(folder / f"{number:02d}", ended[number])
    return ended


def score_all(ways: Mapping[str, tuple[str, str]], folder: Path, sizes: Sizes) -> list[DemoScore]:
    """`staged eval miniature` for several ways of drawing the same prompts.

    Args:
        ways: Label to checkpoint and mode.
        folder: Where each gets a folder.
        sizes: How much.
    """
    scores: list[DemoScore] = []
    for label, (checkpoint, mode) in ways.items():
        print(f"  {label}", flush=True)
        name = label.split(" ", maxsplit=1)[0].strip(",").lower()
        score = _score(label, checkpoint, mode, folder / name, sizes)
        if scores:
            score = replace(score, difference=_difference(scores[0].result, score.result))
        scores.append(score)
    return scores


def _score(label: str, checkpoint: str, mode: str, folder: Path, sizes: Sizes) -> DemoScore:
    from eval.miniature.draw import draw as draw_samples
    from eval.miniature.report import result_of
    from eval.miniature.score import score
    from eval.miniature.settings import MiniatureSettings, samples
    from eval.miniature.store import BatchStore
    from staged.settings import from_dict

    data: dict[str, Any] = {
        "checkpoint": checkpoint,
        "mode": mode,
        "tasks": list(sizes.tasks),
        "num_per_task": sizes.num_per_task,
        "num_flow_steps": sizes.num_flow_steps,
    }
    settings = from_dict(MiniatureSettings, data, "demo")
    wanted, store = samples(settings), BatchStore(folder)
    draw_samples(settings, wanted, store, batch_size=32, tell=lambda _: None)  # as said at first
    trajectories = store.trajectories()
    scored = score(wanted, trajectories)
    result = result_of(store.record(), scored)
    result.write(folder / "result.json")
    return DemoScore(label=label, result=result, scored=scored, trajectories=trajectories)


def _difference(first: BenchmarkResult, second: BenchmarkResult) -> Estimate:
    from eval.statistics import mean_of_means, paired_difference

    return mean_of_means(
        paired_difference(first.observations(task), second.observations(task))
        for task in first.samples
    )


def _verdicts(trajectory: Trajectory) -> list[str]:
    from staged.trajectory import Inspection

    return [step.verdict for step in trajectory.steps if isinstance(step, Inspection)]
