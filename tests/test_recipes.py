"""Verification cards say what the settings files, the planner and measured runs say."""

import re

import pytest
from test_train_configs import ROOT, TRAININGS
from training import SLOW

from benchmarks.recipes import CARDS, FULL_SIZE, MINIATURES, Recipe, card, index
from staged.device_memory import GIB
from staged.settings import load
from train.forecast import config_of, forecast
from train.gpus import GPUS
from train.settings import TrainSettings

AGAIN = "python benchmarks/recipes.py writes it again"
QUICK = ("bagel_7b/plan_sketch_lora", *MINIATURES)
REST = [name for name in (*FULL_SIZE, *MINIATURES) if name not in QUICK]


def test_every_training_that_ships_has_a_card_and_no_other() -> None:
    shipped = {str(path.relative_to("configs").with_suffix("")) for path in TRAININGS}
    assert {*FULL_SIZE, *MINIATURES} == shipped
    files = {Recipe.read(name).file for name in shipped}
    assert {path.name for path in CARDS.glob("*.md")} == files | {"README.md"}


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=SLOW) for name in REST)])
def test_a_card_is_what_is_made_of_its_settings(name: str) -> None:
    assert (CARDS / Recipe.read(name).file).read_text() == card(name), AGAIN


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


def test_the_index_is_what_is_made_of_them() -> None:
    assert (CARDS / "README.md").read_text() == index(), AGAIN
