"""Every default has one home: whoever has the same setting takes it from there."""

import ast
import inspect
import subprocess
import sys
import textwrap
from dataclasses import MISSING, fields
from typing import Any

import pytest

from eval.miniature.settings import MiniatureSettings
from staged.backends.bagel_settings import BagelSettings
from staged.engine.text_sampling import TextSampling
from staged.generate.role_choice import RoleChoice
from staged.generate.settings import DrawSettings
from staged.loops.policy import Policy


def defaults(settings: type[Any]) -> dict[str, ast.expr]:
    """The defaults of a class as they are written."""
    [found] = ast.parse(textwrap.dedent(inspect.getsource(settings))).body
    assert isinstance(found, ast.ClassDef)
    return {
        node.target.id: node.value
        for node in found.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
    }


@pytest.mark.parametrize(
    ("taker", "home"),
    [
        (BagelSettings, TextSampling),
        (DrawSettings, Policy),
        (DrawSettings, BagelSettings),
        (RoleChoice, DrawSettings),
    ],
    ids=lambda settings: settings.__name__,
)
def test_a_setting_that_another_class_has_too_takes_its_default(
    taker: type[Any], home: type[Any]
) -> None:
    written = defaults(taker)
    # How long a block may be, and what of it is kept, BAGEL's players choose for themselves.
    own = {"top_p"} if taker is BagelSettings else set()
    shared = {f.name for f in fields(home) if f.default is not MISSING} & written.keys() - own
    assert shared
    for name in shared:
        assert ast.unparse(written[name]) == f"{home.__name__}.{name}", name
        assert getattr(taker, name) == getattr(home, name)


def test_a_temperature_that_nothing_could_write_at_is_refused_where_it_is_given() -> None:
    for wrong in (-0.1, 101):
        with pytest.raises(ValueError, match=f"temperature is {wrong}"):
            MiniatureSettings(checkpoint="miniature:base", temperature=wrong)


def test_how_a_checkpoint_draws_is_read_without_torch() -> None:
    code = (
        "import sys, staged.generate.settings\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
