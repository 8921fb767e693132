"""`staged paper`: what it makes is made once, and its pages say what was drawn and what was not."""

import csv
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import pytest
from test_documented_commands import TakenError, read
from test_documented_commands import reading_only as reading_only
from test_eval_report import evaluated
from test_report import Page

import staged
from eval.paper.cell import read_cell
from eval.paper.figures import FIGURES, complexity
from eval.paper.pictures import chosen, sheet
from eval.paper.settings import FigureKind, PaperSettings, SectionKind, TableKind
from eval.paper.tables import TABLES
from eval.results import BenchmarkResult
from staged.cli import main
from staged.images import decode
from staged.settings import from_dict, load

STUDIES = sorted((Path(staged.__file__).parents[1] / "configs/paper").glob("*.yaml"))
ONCE = {"label": "once", "checkpoint": "miniature:fresh"}
STAGES = {"label": "in stages", "checkpoint": "miniature:fresh", "draw": {"mode": "staged"}}
KINDS = [kind for kind in get_args(TableKind) + get_args(FigureKind) if kind != "search"]


def study_of(out: Path, **changes: Any) -> dict[str, Any]:
    """A study of two cells that are drawn by hand, one after the other, and one that is not."""
    sections = [
        {"kind": kind, "title": f"A {kind}", "cells": ["once", "stages"], "x_label": "amount"}
        for kind in KINDS
    ]
    return {
        "title": "A study",
        "intro": "Of shapes,\nwith `words`.",
        "out": str(out),
        "page": str(out / "page.md"),
        "prompts": {"tasks": ["colors"], "num_per_task": 6, "images_per_prompt": 1},
        "cells": {
            "once": {**ONCE, "at": 1},
            "stages": {**STAGES, "at": 2},
            "absent": {**STAGES, "label": "never"},
        },
        "sections": [
            {"kind": "tasks", "title": "All", "cells": ["once", "stages", "absent"],
             "minus": "once", "words": "Above it.", "published": ["BAGEL-7B staged"]},
            *sections,
            {"kind": "pictures", "title": "Pictures", "cells": ["once", "stages"], "number": 2},
        ],
        **changes,
    }  # fmt: skip


def written(path: Path, study: dict[str, Any]) -> str:
    path.write_text(json.dumps(study))  # JSON is YAML too
    return str(path)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    evaluated(folder / "cells/once/seed-0", [True, False, False, False, False, None])
    right = [True, True, True, True, False, True]
    evaluated(folder / "cells/stages/seed-0", right, staged=True)
    study = written(folder / "study.yaml", study_of(folder))
    assert main(["paper", study, "--write-only"]) == 0
    return folder


def test_the_web_page_shows_every_section_and_says_what_is_missing(out: Path) -> None:
    html = (out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(|<script|https?://", html)
    page = Page(html)
    for words in (
        "Of shapes, with words.",
        "in stages is better than once by .60",
        "Above it.",
        "Not drawn yet: never.",
        "in stages minus once",
        "Inspection: in stages",
        "once: right",
        "in stages: wrong",
        "weights 000000000000",
        "BAGEL-7B staged (published, GenEval)",
    ):
        assert words in page.text, words


def test_the_markdown_page_has_tables_figures_and_pictures_beside_it(out: Path) -> None:
    text = (out / "page.md").read_text(encoding="utf-8")
    assert "| BAGEL-7B staged (published, GenEval) | .87 | .83 | – | – | – |" in text
    assert (
        "| in stages | .83 | .83 [.30, .98] | 1.00 | 6 |" in text
        and "| never | not drawn |" in text
    )
    assert "1 unscored" in text
    linked = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(linked) == len(set(linked)) and all((out / name).is_file() for name in linked)
    figures = [name for name in linked if name.endswith(".svg")]
    assert len(figures) == 5
    for name in figures:
        root = ElementTree.parse(out / name).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "http" not in ElementTree.tostring(root, encoding="unicode").split(">", 1)[1]
    pictures = [decode((out / name).read_bytes()) for name in linked if name.endswith(".png")]
    assert len(pictures) == 4 and all(p.shape[2] == 3 for p in pictures)


def test_numbers_lie_beside_the_page_and_are_those_of_the_lines(out: Path) -> None:
    [row] = [
        row
        for row in csv.DictReader((out / "page/01-all.csv").open())
        if row["cell"] == "in stages"
    ]
    overall = BenchmarkResult.read(out / "cells/stages/seed-0/result.json").overall
    assert float(row["overall value"]) == overall.value
    assert float(row["overall low"]) == overall.low
    assert float(row["minus once value"]) == pytest.approx(4 / 5 - 1 / 5)


def test_every_kind_of_section_is_made_by_somebody() -> None:
    assert set(TABLES) == set(get_args(TableKind)) and set(FIGURES) == set(get_args(FigureKind))
    kinds = {kind for part in get_args(SectionKind) for kind in (get_args(part) or (part,))}
    assert kinds == {*TABLES, *FIGURES, "pictures"}


def test_a_seed_alone_is_scored_as_if_there_were_no_other(out: Path, tmp_path: Path) -> None:
    cell = read_cell(load(PaperSettings, out / "study.yaml"), "stages")
    assert cell
    alone = BenchmarkResult.read(out / "cells/stages/seed-0/result.json")
    other = [replace(item, key=f"1{item.key}", correct=False) for item in cell.scored]
    both = replace(
        cell, records={0: cell.records[0], 10: cell.records[0]}, scored=(*cell.scored, *other)
    )
    [zero, ten] = [both.of_seed(seed) for seed in (0, 10)]
    assert zero and ten and both.of_seed(1) is None
    assert zero.overall == alone.overall and ten.overall.value == 0
    assert both.run.result.overall.value == pytest.approx(5 / 12)


def test_chance_chooses_pictures_and_chooses_the_same_again(out: Path) -> None:
    settings = load(PaperSettings, out / "study.yaml")
    once, stages = read_cell(settings, "once"), read_cell(settings, "stages")
    assert once and stages
    right, wrong = chosen(stages, number=2)
    assert (len(right.scored), len(wrong.scored), right.in_steps) == (2, 1, True)
    assert [s.key for s in right.scored] == [s.key for s in chosen(stages, number=2)[0].scored]
    assert all(t.prompt == s.prompt for s, t in zip(right.scored, right.trajectories, strict=True))
    assert sheet(right).shape == (6 + 2 * 102, 6 + 2 * 102, 3)  # a row each, two pictures
    assert sheet(chosen(once, number=9)[1]).shape == (6 + 102, 6 + 4 * 102, 3)


def test_complexity_counts_things_and_relations(out: Path) -> None:
    cell = read_cell(load(PaperSettings, out / "study.yaml"), "once")
    assert cell
    two = "a photo of a red circle above a blue star"
    assert complexity(replace(cell.scored[0], prompt=two)) == 3
    assert complexity(replace(cell.scored[0], prompt="a photo of three hearts")) == 3


def test_what_was_drawn_otherwise_is_not_shown_as_the_studys(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_of(out)
    study["cells"]["once"]["draw"] = {"num_flow_steps": 3}
    assert main(["paper", written(tmp_path / "a.yaml", study), "--write-only"]) == 1
    said = capsys.readouterr().err
    assert "drawn otherwise than cells.once says (num_flow_steps)" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["sections"][0].update(cells=["nobody"]), "'nobody' is none of once, stages"),
        (lambda s: s["sections"][0].update(minus="nobody"), "'nobody' is none of"),
        (lambda s: s["cells"]["once"].update(needs=["x"]), "'x' is none of nothing"),
        (lambda s: s["cells"]["once"].update(draw={"seed": 3}), "draw has seed"),
        (lambda s: s["cells"]["once"].update(draw={"mode": "slow"}), "mode"),
        (lambda s: s["cells"].update({"a/b": ONCE}), "name 'a/b'; use letters"),
        (lambda s: s["prompts"].update(seeds=[1, 1]), "each once"),
        (lambda s: s["sections"][0].update(cells=[]), "cells is empty"),
        (
            lambda s: s["sections"][0].update(published=["BAGEL-7B stage"]),
            "nothing is published under 'BAGEL-7B stage' for geneval; did you mean "
            "'BAGEL-7B staged'?",
        ),
        (
            lambda s: s["sections"][0].update(kind="cost", published=["BAGEL-7B"]),
            "published is for sections of kind tasks",
        ),
        (
            lambda s: s["sections"][0].update(kind="rounds", cells=["once"] * 7, published=[]),
            "a figure tells 6 apart",
        ),
        (
            lambda s: s.update(
                builds={
                    name: {"command": ["train"], "makes": "x", "cpu_hours": 0, "h100_minutes": 0,
                           "needs": [other]}
                    for name, other in (("a", "b"), ("b", "a"))
                }
            ),
            "builds need one another: a -> b -> a",
        ),
    ],
)  # fmt: skip
def test_a_study_that_cannot_be_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    study = study_of(tmp_path)
    change(study)
    with pytest.raises(ValueError, match=re.escape(message)):
        from_dict(PaperSettings, study, "study")


def real_study(out: Path, num_samples: int = 4) -> dict[str, Any]:
    """A study that builds a data set and draws two cells."""
    quick = {"label": "quick", "checkpoint": "miniature:fresh", "draw": {"num_flow_steps": 1}}
    return study_of(
        out,
        builds={
            "data": {
                "command": [
                    "data",
                    "base",
                    "configs/shapes/base_data.yaml",
                    "out={out}/data",
                    f"num_samples={num_samples}",
                ],
                "makes": "{out}/data/index.json",
                "cpu_hours": 1,
                "h100_minutes": 1,
            }
        },
        prompts={"tasks": ["colors"], "num_per_task": 2, "images_per_prompt": 1, "seeds": [0, 1]},
        cells={"first": {**quick, "needs": ["data"]}, "last": {**quick, "label": "last"}},
        sections=[{"kind": "tasks", "title": "All", "cells": ["first", "last"], "minus": "first"}],
    )


def test_a_study_that_was_killed_goes_on_and_makes_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = written(tmp_path / "study.yaml", real_study(tmp_path))
    assert main(["paper", study, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "to be made" in said and said.count("2 of 2 images") == 4
    first = tmp_path / "cells/first/seed-0/result.json"
    with subprocess.Popen(
        [sys.executable, "-m", "staged", "paper", study], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 300
        while not first.is_file() and process.poll() is None:
            assert time.monotonic() < deadline, "it drew nothing"
            time.sleep(0.01)
        process.kill()
    there = {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in (tmp_path / "data/index.json", first)
    }
    assert main(["paper", study]) == 0
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in there} == there
    assert "last scores the same as quick" in capsys.readouterr().out
    assert main(["paper", study, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("nothing:") == 5
    # Another command for what is there already: neither is silently taken for the other.
    other = written(tmp_path / "other.yaml", real_study(tmp_path, num_samples=5))
    assert main(["paper", other]) == 1
    assert "was begun by another command than builds.data has now" in capsys.readouterr().err


def test_a_build_that_fails_stops_the_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = real_study(tmp_path)
    study["builds"]["data"]["command"] = ["data", "nothing"]
    assert main(["paper", written(tmp_path / "a.yaml", study)]) == 1
    assert "builds.data: `staged data nothing` ended with 2" in capsys.readouterr().err
    study["builds"]["data"]["command"] = ["configs"]
    assert main(["paper", written(tmp_path / "b.yaml", study), f"out={tmp_path / 'b'}"]) == 1
    assert "has not made" in capsys.readouterr().err
    assert main(["paper", str(tmp_path / "b.yaml"), "--only", "nobody"]) == 1
    assert "no cell 'nobody'; there are first, last" in capsys.readouterr().err


def builds() -> list[Any]:
    found = []
    for path in STUDIES:
        settings = load(PaperSettings, path)
        found += [pytest.param(settings.command(name), id=name) for name in settings.builds]
    return found


@pytest.mark.parametrize("words", builds())
@pytest.mark.usefixtures("reading_only")
def test_every_build_of_a_shipped_study_is_a_command_that_is_taken(words: list[str]) -> None:
    with pytest.raises(TakenError):
        read(["staged", *words])


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_starts(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its base, on one prompt; that whatever else it draws can be drawn is checked as it loads."""
    few = ["prompts.seeds=[0]", "prompts.tasks=[colors]", "prompts.num_per_task=1",
           "prompts.images_per_prompt=1", "cells.base.draw={num_flow_steps: 1}"]  # fmt: skip
    words = ["paper", str(path), f"out={tmp_path}", *few]
    assert main([*words, "--dry-run"]) == 0
    settings = load(PaperSettings, path, [f"out={tmp_path}", *few])
    assert capsys.readouterr().out.count("1 of 1 images") == len(settings.cells)
    assert main([*words, "--only", "base"]) == 0
    assert (tmp_path / "report.html").is_file()
