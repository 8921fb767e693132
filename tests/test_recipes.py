"""Verification cards say what the settings files, the planner and measured runs say."""

import pytest
from test_train_configs import TRAININGS
from training import SLOW

from benchmarks.recipes import CARDS, FULL_SIZE, MINIATURES, Recipe, card, index

AGAIN = "python benchmarks/recipes.py writes it again"
QUICK = ("bagel_7b/plan_sketch_lora", "shapes/demo_train")
REST = [name for name in (*FULL_SIZE, *MINIATURES) if name not in QUICK]


def test_every_training_that_ships_has_a_card_and_no_other() -> None:
    shipped = {str(path.relative_to("configs").with_suffix("")) for path in TRAININGS}
    assert {*FULL_SIZE, *MINIATURES} == shipped
    files = {Recipe.read(name).file for name in shipped}
    assert {path.name for path in CARDS.glob("*.md")} == files | {"README.md"}


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=SLOW) for name in REST)])
def test_a_card_is_what_is_made_of_its_settings(name: str) -> None:
    assert (CARDS / Recipe.read(name).file).read_text() == card(name), AGAIN


def test_the_index_is_what_is_made_of_them() -> None:
    assert (CARDS / "README.md").read_text() == index(), AGAIN
