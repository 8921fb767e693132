"""ARCHITECTURE.md says what is there: its map, its rules and its places, read against the tree."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
MAP = TEXT.split("```")[1]
APPLICATIONS = ("data_pipelines", "train", "eval")


def contracts() -> list[dict[str, Any]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return found


def layers() -> dict[str, int]:
    """The height of each part of `staged` by the import contract; higher ones may import lower."""
    contract = next(c for c in contracts() if c.get("containers") == ["staged"])
    assert contract["exhaustive"], "a part that the contract lacks may import and be imported"
    rows = [re.findall(r"\w+", row) for row in reversed(contract["layers"])]
    return {name: height for height, row in enumerate(rows) for name in row}


def parts() -> set[str]:
    """Packages and modules of `staged` that git keeps (others' caches lie there too)."""
    found = {p.parent.name for p in (ROOT / "staged").glob("*/__init__.py")}
    return found | {p.stem for p in (ROOT / "staged").glob("*.py") if not p.stem.startswith("__")}


def on_the_map() -> dict[str, int]:
    """The row of the map in which each part of `staged` stands."""
    found: dict[str, int] = {}
    for number, row in enumerate(MAP.splitlines()):
        words = re.findall(r"(?<![\w/])(?:staged/)?(\w+)(?:/|\.py)(?!\w)", row)
        for name in (word for word in words if word not in (*APPLICATIONS, "staged")):
            assert name not in found, f"{name} stands on the map twice"
            found[name] = number
    return found


def rule(number: int) -> str:
    rules = re.split(r"^\d+\. ", TEXT.split("## The rules")[1].split("\n## ")[0], flags=re.M)
    return " ".join(rules[number].split())


def names(text: str) -> list[str]:
    return re.findall(r"`([\w.]+)`", text)


def test_the_map_names_every_part_of_the_library_and_nothing_else() -> None:
    assert set(on_the_map()) == parts()
    for application in APPLICATIONS:
        assert f"{application}/" in MAP and (ROOT / application / "__init__.py").exists()


def test_the_map_has_the_order_of_the_import_contract() -> None:
    heights, rows = layers(), on_the_map()
    for higher in rows:
        for lower in rows:
            if heights.get(higher, -1) > heights.get(lower, 99):
                assert rows[higher] <= rows[lower], f"{higher} may import {lower}, yet stands below"


# Paragraphs, items and rows: a file that is named without its folder lies beside the one before it.
ITEMS = [" ".join(i.split()) for i in re.split(r"\n(?=\n|- |\d+\. |\|)", TEXT.split("```", 2)[2])]


@pytest.mark.parametrize("item", [item for item in ITEMS if item])
def test_every_path_and_every_name_in_it_exists(item: str) -> None:
    folder = ROOT / "staged"
    for path in re.findall(r"`([\w./]+(?:/|\.py|\.md|\.toml))`", item):
        where = ROOT / path if "/" in path else folder / path
        assert where.exists() or (ROOT / path).exists(), f"{path} does not exist"
        folder = (where if path.endswith("/") else where.parent) if "/" in path else folder
    for found, path in re.findall(r"((?:`\w+`(?:, | or )?)+) of `([\w/]+\.py)`", item):
        code = (ROOT / path).read_text(encoding="utf-8")
        for name in names(found):
            assert re.search(rf"^(?:def|class) {name}\b", code, re.M), f"{path} has no {name}"


def test_the_pure_modules_are_those_of_the_contract() -> None:
    contract = next(c for c in contracts() if "torch" in c.get("forbidden_modules", ()))
    stated = re.search(r"\((.*?)\)", rule(2))
    assert stated and {f"staged.{name}" for name in names(stated[1])} == set(
        contract["source_modules"]
    )


def test_what_knows_nothing_of_what_is_checked_by_a_contract() -> None:
    heights = layers()
    for sentence in rule(3).rstrip(".").split(". "):
        knowing, known = re.split(" knows? nothing of ", sentence)
        for who in names(knowing):
            for other in names(known):
                assert heights[who] < heights[other] or any(
                    f"staged.{who}" in contract.get("source_modules", ())
                    and f"staged.{other}" in contract["forbidden_modules"]
                    for contract in contracts()
                ), f"no contract keeps {who} from {other}"


def test_the_applications_are_kept_apart_by_contracts() -> None:
    assert all(f"`{name}`" in rule(1) for name in ("staged", *APPLICATIONS))
    independent = [c for c in contracts() if c["type"] == "independence"]
    assert any(set(c["modules"]) == set(APPLICATIONS) for c in independent)
    forbidden = [c for c in contracts() if c.get("source_modules") == ["staged"]]
    assert any(set(c["forbidden_modules"]) == set(APPLICATIONS) for c in forbidden)


def test_no_two_public_classes_share_a_name() -> None:
    found: dict[str, list[str]] = {}
    for path in (p for room in ("staged", *APPLICATIONS) for p in (ROOT / room).rglob("*.py")):
        for name in re.findall(r"^class ([A-Z]\w*)", path.read_text(encoding="utf-8"), re.M):
            found.setdefault(name, []).append(str(path.relative_to(ROOT)))
    shared = {name: paths for name, paths in found.items() if len(paths) > 1}
    assert not shared, f"one name, one meaning: {shared}"
