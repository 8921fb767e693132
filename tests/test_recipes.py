"""Verification cards say what the settings files, the planner and measured runs say."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from test_train_configs import REINFORCEMENTS as REWARDED
from test_train_configs import ROOT, TRAININGS
from training import SLOW

from benchmarks.parts.reinforcement_card import kept_to_draw, learning
from benchmarks.recipes import CARDS, FULL_SIZE, MINIATURES, REINFORCEMENTS, card, file_of, index
from staged.device_memory import GIB
from staged.settings import load
from train.forecast import PUBLISHED, config_of, forecast
from train.gpus import GPUS
from train.reinforce.settings import ReinforceSettings
from train.settings import TrainSettings

AGAIN = "python benchmarks/recipes.py writes it again"
QUICK = ("bagel_7b/plan_sketch_lora", *MINIATURES, *REINFORCEMENTS)
REST = [name for name in (*FULL_SIZE, *MINIATURES) if name not in QUICK]


def test_every_training_and_reinforcement_that_ships_has_a_card_and_no_other() -> None:
    def names(paths: list[Path]) -> set[str]:
        return {str(path.relative_to("configs").with_suffix("")) for path in paths}

    assert {*FULL_SIZE, *MINIATURES} == names(TRAININGS)
    assert set(REINFORCEMENTS) == names(REWARDED)
    files = {file_of(name) for name in names(TRAININGS + REWARDED)}
    assert {path.name for path in CARDS.glob("*.md")} == files | {"README.md"}


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=SLOW) for name in REST)])
def test_a_card_is_what_is_made_of_its_settings(name: str) -> None:
    assert (CARDS / file_of(name)).read_text() == card(name), AGAIN


def test_what_a_card_says_of_other_machines_is_what_the_run_takes() -> None:
    """Overrides as they stand there: of eight devices and of several machines."""
    text = card("bagel_7b/plan_sketch_gen")
    rows = re.findall(r"^\| (\d+) x (\w+) \| `(.+)` \| (\d+) of \d+ \|", text, re.M)
    assert {"2", "8", "16", "64"} <= {ranks for ranks, *_ in rows}
    for ranks, gpu, overrides, said in rows:
        path = ROOT / "configs/bagel_7b/plan_sketch_gen.yaml"
        settings = load(TrainSettings, path, overrides.split())
        found = forecast(settings, config_of(settings.init), int(ranks)).total
        assert round(found / GIB) == int(said) and found <= GPUS[gpu].memory


def test_reinforcement_at_full_size_fits_the_machine_that_it_names() -> None:
    shipped = load(ReinforceSettings, ROOT / "configs/bagel_7b/reinforce_lora.yaml")
    config = config_of(PUBLISHED)
    for found in (learning(shipped, config).total, kept_to_draw(shipped, config)):
        assert found <= GPUS["h100"].memory
    more = replace(shipped, rollouts=replace(shipped.rollouts, batch_size=64))
    longer = kept_to_draw(more, config) - kept_to_draw(shipped, config)
    # 48 rollouts more, of two sketches of 1024 px (an image is 9,000 tokens) in 57 kB a token.
    assert longer > 48 * 2 * 8000 * 57_000


def test_the_index_is_what_is_made_of_them() -> None:
    assert (CARDS / "README.md").read_text() == index(), AGAIN
