"""What is imported is declared, and what is declared is imported."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {path.stem for path in (*ROOT.iterdir(), *ROOT.glob("tests/*.py"))}
APPLICATIONS = ["staged", "data_pipelines", "train", "eval"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

NOBODY = "a-package-that-nobody-has"  # a test of the command's words about missing packages

OTHER_NAMES = {"c2pa": "c2pa-python", "pil": "pillow", "yaml": "pyyaml"}
"""Packages whose name is not that of what they bring."""

THROUGH = {
    "accelerate": ("staged", "enable_model_cpu_offload("),
    "tensorboard": ("train", "torch.utils.tensorboard"),
}
"""Packages that another one imports for us: the folder, and the words in it that make it do so."""

WHOLE = {"staged/server/": "serve"}
"""Folders that nothing imports at once, and the extra without which nothing in them works."""

TOOLS = {
    "fastapi",
    "prometheus-client",
    "python-multipart",
    "import-linter",
    "mypy",
    "pytest-xdist",
    "ruff",
    "types-networkx",
    "types-pyyaml",
}
"""Packages of `dev` that are run and not imported."""


def named(requirements: list[str]) -> set[str]:
    return {package(re.split(r"[\s<>=!~;\[]", line)[0]) for line in requirements}


def package(name: str) -> str:
    lower = name.lower().replace("_", "-")
    return OTHER_NAMES.get(lower, lower)


CORE = named(PROJECT["dependencies"])
EXTRAS = {name: named(lines) for name, lines in PROJECT["optional-dependencies"].items()}


@cache
def imports(folder: str) -> Sequence[tuple[str, bool, str]]:
    return tuple(_imports(folder))


def _imports(folder: str) -> Iterator[tuple[str, bool, str]]:
    """Package, whether it is needed to import the module at all, and where, of each import."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        late = {
            inner
            for outer in ast.walk(tree)
            if isinstance(outer, functions)
            for inner in ast.walk(outer)
        }
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in OURS and top not in sys.stdlib_module_names:
                    where = f"{path.relative_to(ROOT)}:{node.lineno}"
                    yield package(top), node not in late, where


@pytest.mark.parametrize("folder", [*APPLICATIONS, "benchmarks"])
def test_what_is_imported_is_declared(folder: str) -> None:
    optional = set().union(*(EXTRAS[name] for name in EXTRAS if name != "dev"))
    for name, at_once, where in imports(folder):
        extras = [EXTRAS[extra] for place, extra in WHOLE.items() if where.startswith(place)]
        known = CORE.union(*extras) if at_once else CORE | optional
        assert name in known, f"{where} imports {name}, which no dependency brings"


def test_what_tests_import_is_declared() -> None:
    for name, _, where in imports("tests"):
        assert name in CORE | EXTRAS["dev"] | {NOBODY}, (
            f"{where} imports {name}, which dev does not bring"
        )


def test_what_is_declared_is_imported() -> None:
    found = {name for folder in APPLICATIONS for name, _, _ in imports(folder)}
    assert CORE - found - set(THROUGH) == set()
    in_tests = {name for name, _, _ in imports("tests")}
    assert EXTRAS["dev"] - in_tests - TOOLS == set()


@pytest.mark.parametrize("name", THROUGH)
def test_what_others_import_for_us_is_asked_for(name: str) -> None:
    folder, words = THROUGH[name]
    assert any(words in path.read_text() for path in (ROOT / folder).rglob("*.py"))


def test_an_extra_brings_what_the_core_does_not() -> None:
    for name, packages in EXTRAS.items():
        assert packages, f"the extra {name} brings nothing"
        assert not packages & CORE, f"the extra {name} names what the core brings"

    sources = [path for folder in APPLICATIONS for path in (ROOT / folder).rglob("*.py")]
    for name in EXTRAS.keys() - {"dev"}:
        words = f"pip install staged[{name}]"
        assert any(words in path.read_text() for path in sources), f"nothing says {words}"
