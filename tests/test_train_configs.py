"""Every settings file that ships is of some job, and every training starts as it is configured."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from training import World, build

import staged
from data_pipelines.base import BaseSettings
from data_pipelines.critique.settings import CritiqueSettings
from data_pipelines.plan_sketch.settings import PlanSketchSettings
from data_pipelines.refine.settings import RefineSettings
from eval.miniature.settings import MiniatureSettings
from eval.paper.settings import PaperSettings
from staged import strict_yaml
from staged.idea2img.settings import Idea2ImgSettings
from staged.settings import SettingsError, load
from train.autoencoder.settings import AutoencoderJob
from train.forecast import config_of, forecast
from train.gpus import GPUS
from train.job import Trainer
from train.reinforce.job import Reinforcer
from train.reinforce.settings import ReinforceSettings, RewardSettings
from train.self_reward.settings import SelfRewardSettings
from train.settings import TrainSettings

ROOT = Path(staged.__file__).parents[1]
CONFIGS = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml"))
JOBS = (
    *(AutoencoderJob, BaseSettings, CritiqueSettings, Idea2ImgSettings),
    *(MiniatureSettings, PaperSettings, PlanSketchSettings, RefineSettings, SelfRewardSettings),
    ReinforceSettings,
    TrainSettings,
)
KEYS = {path: strict_yaml.read(ROOT / path)[0].keys() for path in CONFIGS}
TRAININGS = [path for path in CONFIGS if {"init", "data"} <= KEYS[path]]
REINFORCEMENTS = [path for path in CONFIGS if {"init", "prompts"} <= KEYS[path]]


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_every_file_is_settings_of_some_job(path: Path) -> None:
    problems = {}
    for job in JOBS:
        try:
            load(job, ROOT / path)
        except SettingsError as error:
            problems[job.__name__] = str(error)
    assert len(problems) < len(JOBS), problems
    assert ("TrainSettings" not in problems) == (path in TRAININGS)
    assert ("ReinforceSettings" not in problems) == (path in REINFORCEMENTS)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("path", TRAININGS, ids=str)
def test_every_training_starts_on_a_tiny_model_and_tiny_data(
    world: World, path: Path, tmp_path: Path
) -> None:
    shipped = load(TrainSettings, ROOT / path)
    settings = replace(
        shipped,
        init=str(world.init),
        data=tuple(replace(subset, path=world.data) for subset in shipped.data),
        out=tmp_path,
        cache=None,
        num_steps=2,
        pack_tokens=min(shipped.pack_tokens, 2000),
        packs_per_step=min(shipped.packs_per_step, 2),
        device="cpu",
        num_threads=1,
        compile=False,  # needs a compiler and minutes
        log=replace(shipped.log, sample_every_steps=2, sample_flow_steps=1),
    )
    folder = Trainer(settings).run()
    made = "adapter_model.safetensors" if shipped.lora else "ema.safetensors"
    assert (folder / made).is_file()
    assert bool(list(tmp_path.glob("samples/*.png"))) == bool(shipped.log.sample_prompts)


@pytest.mark.parametrize("path", REINFORCEMENTS, ids=str)
def test_every_reinforcement_starts_on_the_miniature_and_few_rollouts(
    path: Path, tmp_path: Path
) -> None:
    shipped = load(ReinforceSettings, ROOT / path)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a photo of a red square\n")
    # The benchmark's detector has weights of its own; the miniature's rates in the same way.
    scorer = "eval.search.verifiers.detector:MiniatureVerifier"
    rated = RewardSettings(kind="scorer", scorer=scorer)
    settings = replace(
        shipped,
        init="miniature:staged",
        prompts=prompts,
        out=tmp_path / "out",
        iterations=1,
        pack_tokens=min(shipped.pack_tokens, 4000),
        device="cpu",
        num_threads=1,
        probe=shipped.probe and replace(shipped.probe, prompts=prompts),
        rollouts=replace(
            shipped.rollouts, num_prompts=1, group_size=2, num_flow_steps=1, max_rounds=1
        ),
        reward=rated if shipped.reward.kind == "scorer" else shipped.reward,
    )
    folder = Reinforcer(settings).run()
    made = "adapter_model.safetensors" if shipped.lora else "ema.safetensors"
    assert (folder / made).is_file()


FULL_SIZE = [path for path in TRAININGS if "bagel_7b" in path.parts]


@pytest.mark.parametrize("path", FULL_SIZE, ids=str)
def test_every_training_of_full_size_fits_the_machine_that_it_names(path: Path) -> None:
    """By the count that the run itself makes; `machine` lines are what users go by."""
    [(ranks, gpu)] = re.findall(r"^# machine: (\d+) x (\w+)$", (ROOT / path).read_text(), re.M)
    shipped = load(TrainSettings, ROOT / path)
    found = forecast(shipped, config_of(shipped.init), int(ranks))
    assert found.total <= GPUS[gpu].memory, found.parts


def test_the_shipped_trainings_are_found() -> None:
    assert {path.name for path in TRAININGS} >= {"base.yaml", "plan_sketch.yaml"}
    stages = ("plan_sketch", "inspect", "refine", "joint")
    names = {path.stem for path in FULL_SIZE}
    assert names == {f"{stage}{form}" for stage in stages for form in ("", "_lora")} | {
        "plan_sketch_gen",
        "refine_gen",
    }
