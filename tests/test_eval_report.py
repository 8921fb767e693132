"""The page about evaluations: real result files, lines and pictures in, one page out."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_report import Page

from eval.__main__ import main as staged_eval
from eval.miniature.settings import MiniatureSample, MiniatureSettings, samples
from eval.miniature.store import BatchStore, Record
from eval.report import main
from eval.report.answer import answer
from eval.report.galleries import stretches
from eval.report.page import build
from eval.report.process import process_sections
from eval.report.runs import Run, open_run
from eval.report.scores import difference_sections, score_sections
from eval.results import BenchmarkResult
from eval.wise.versions import VERSIONS
from staged import images
from staged.report import Dots, Stacks, Table
from staged.report.chart import lanes
from staged.report.tables import number
from staged.shapes.world.render import render
from staged.shapes.world.scene import Scene, Shape
from staged.trajectory import (
    ImageRef,
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Step,
    Stop,
    Trajectory,
)
from staged.trajectory_folder import save_trajectory

CIRCLE = Shape(kind="circle", color="red", size="large", x=14, y=24)
STAR = Shape(kind="star", color="blue", size="large", x=34, y=24)
PLAN = Plan(instruction="draw the dog", description="a dog")
SETTINGS = MiniatureSettings(checkpoint="miniature:fresh", tasks=("colors",), num_per_task=6)


def sketch(*shapes: Shape) -> Sketch:
    pixels = render(Scene(shapes=shapes, background=(160, 165, 170)))
    return Sketch(image=ImageRef.from_array(pixels), num_flow_steps=10)


def wanted(sample: MiniatureSample) -> Shape:
    [thing] = sample.prompt.spec.things
    return replace(CIRCLE, kind=thing.kind, color=thing.color or "red")


def staged_path(sample: MiniatureSample, *, right: bool) -> tuple[Step, ...]:
    """One refinement from an empty picture to the right one, or to a surplus star alone."""
    description = sample.prompt.text.removeprefix("a photo of ")
    return (
        Plan(instruction=f"add {description}", description=description),
        sketch(),
        Inspection(target="sketch", verdict="revise", critique=f"the {description[2:]} is missing"),
        Refinement(instruction=f"add {description}"),
        sketch(wanted(sample)) if right else sketch(STAR),
        Stop(),
    )


def evaluated(folder: Path, right: Sequence[bool | None], *, staged: bool = False) -> Path:
    """A folder of `staged eval miniature`, drawn by hand; None is not drawn."""
    settings = replace(SETTINGS, mode="staged") if staged else SETTINGS
    store = BatchStore(folder)
    store.claim(Record(settings=settings, flow={}, weights="0" * 64, versions={}))
    drawn = []
    for sample, good in zip(samples(settings), right, strict=True):
        if good is None:
            continue
        once = (sketch(wanted(sample), STAR) if good else sketch(STAR), Stop())
        steps = staged_path(sample, right=good) if staged else once
        drawn.append((sample.key, Trajectory(prompt=sample.prompt.text, steps=steps)))
    store.add(drawn, name="000000", seconds=1.0)
    staged_eval(["miniature", "--out", str(folder), "--score-only", "--allow-unscored"])
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("runs")
    once = evaluated(root / "once", [True, False, False, False, False, None])
    stages = evaluated(root / "stages", [True, True, True, True, False, True], staged=True)
    return once, stages


def page_of(tmp_path: Path, *arguments: object) -> Page:
    out = tmp_path / "page.html"
    assert staged_eval(["report", *map(str, arguments), "--out", str(out)]) == 0
    html = out.read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(|<script|https?://", html)
    return Page(html)


def test_a_page_shows_scores_failures_and_steps_of_two_runs(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    page = page_of(tmp_path, *folders, "--names", "once", "in stages", "--per-kind", "2")
    for part in (
        "Unscored: 1 of 12",
        "5 of 6 images are wrong or unscored",
        "Missing 2 of 4 shown.",
        "not counted: the blue star should not be there",
        "Not drawn 1 without a picture to show: not drawn (1)",
        "Only in stages is right 1 of 3 pairs shown.",
        "in stages minus once",
        "Step by step: in stages",
        "is missing",
        f"seed {samples(SETTINGS)[1].seed}",
    ):
        assert part in page.text, part
    assert len(page.all("article")) == 6  # every staged sample, step by step
    assert all("alt" in image for image in page.all("img"))
    headings = [section.get("aria-labelledby") for section in page.all("section")]
    assert len(headings) == len(set(headings))


def test_figures_say_what_the_steps_did(folders: tuple[Path, Path]) -> None:
    sections = {section.title: section for section in process_sections([open_run(folders[1])])}
    stacks = sections["What refinement did"]
    assert isinstance(stacks, Stacks)
    assert [[cell.value for cell in row.cells] for row in stacks.rows] == [[5, 0, 1, 0]]
    name = open_run(folders[1]).name
    inspection = sections[f"Inspection: {name}"]
    assert isinstance(inspection, Dots)
    assert {row.label: [c.value for c in row.cells] for row in inspection.rows} == {
        "sketches: anything wrong": [1, 1],
        "sketches: missing": [1, 1],
    }
    assert {"Accuracy against flow steps", "Accuracy by round"} <= sections.keys()
    assert process_sections([open_run(folders[0])])[0].title == "Accuracy against flow steps"


def test_runs_are_compared_at_equal_flow_steps(folders: tuple[Path, Path]) -> None:
    runs = [open_run(folder, name=folder.name) for folder in folders]
    _, table = difference_sections(runs, across_variants=False)
    assert isinstance(table, Table) and table.title == "At equal flow steps"
    assert [row.label for row in table.rows] == ["10", "20"]
    first, last = ([cell.value for cell in row.cells] for row in table.rows)
    assert first[:2] == [pytest.approx(0.2), 0]  # nothing is right before the refinement
    assert last[:2] == [pytest.approx(0.2), pytest.approx(5 / 6)]
    # Of the five prompts that both have scores for: 4 of 5 less 1 of 5.
    assert last[2] == pytest.approx(0.6)
    gain = table.rows[1].cells[2]
    assert gain.signed and number(gain.value, table.digits, signed=gain.signed) == "+.600"


def test_a_difference_is_named_only_where_its_interval_leaves_out_zero() -> None:
    def run(name: str, *scores: float) -> Run:
        prompts = {str(i): (score,) for i, score in enumerate(scores)}
        return Run(
            result=BenchmarkResult(
                benchmark="x", variant={}, samples={"p": prompts}, weights={"p": 1.0}, run=name
            )
        )

    none, all_, most = run("none", *[0] * 9), run("all", *[1] * 9), run("most", *[0] * 8, 1)
    [table] = difference_sections([none, all_, most], across_variants=False)
    assert isinstance(table, Dots)
    assert [cell.note for cell in table.rows[0].cells] == ["higher", ""]
    assert isinstance(score_sections([none])[0], Dots)


def scored(name: str, *scores: float | None) -> Run:
    prompts = {str(i): (score,) for i, score in enumerate(scores)}
    result = BenchmarkResult(
        benchmark="x", variant={}, samples={"p": prompts}, weights={"p": 1}, run=name
    )
    return Run(result=result)


@pytest.mark.parametrize(
    ("scores", "sentence", "tone"),
    [
        ([1.0] * 9, "new is better than old by 1.00 [", "good"),
        ([0.0] * 9, "new scores the same as old [", "quiet"),
        ([0.0] * 8 + [1.0], "new is better than old by .11 [", "quiet"),
    ],
)
def test_a_page_opens_with_the_answer(scores: list[float], sentence: str, tone: str) -> None:
    old, new = scored("old", *[0.0] * 9), scored("new", *scores)
    [claim] = answer([old, new]).claims
    assert claim.text.startswith(sentence) and claim.tone == tone
    assert claim.text.endswith("], not clearly." if tone == "quiet" else "], clearly.")
    html = build([old, new]).html()
    assert html.index(claim.text) < html.index("<main")


def test_a_clear_loss_and_an_answer_that_is_not_there_are_said() -> None:
    old = scored("old", *[1.0] * 9)
    [claim] = answer([old, scored("new", *[0.0] * 9)]).claims
    assert claim.text.startswith("new is worse than old by 1.00 [−") and claim.tone == "bad"
    assert claim.text.endswith("], clearly.")
    [claim] = answer([old, scored("new", *[None] * 9)]).claims
    assert claim.text.startswith("new and old cannot be compared")
    [claim] = answer([old]).claims
    assert claim.text.startswith("old scores 1.00 [")


def test_few_prompts_get_no_interval_and_no_bar() -> None:
    few, many = scored("few", 1.0, 0.0), scored("many", *[1.0, 0.0] * 3)
    assert few.result.overall.low is not None  # there is one, and it says nothing
    [figure] = score_sections([few])
    assert isinstance(figure, Dots)
    assert [(lane.width, lane.beside) for row in figure.rows for lane in lanes(figure, row)] == [
        (0, "n 2")
    ] * len(figure.rows)
    [wide] = score_sections([many])
    assert isinstance(wide, Dots) and lanes(wide, wide.rows[0])[0].width > 0
    [claim] = answer([few, scored("new", 1.0, 1.0)]).claims
    assert claim.text.endswith("too few prompts (2) to say how sure that is.")


def test_pictures_stand_before_scores_and_scores_before_failures(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    page = page_of(tmp_path, *folders, "--names", "once", "in stages")
    text = page.text[page.text.index("Skip to content") :]
    assert text.index(" better than once by ") < text.index("Unscored: ")
    body = text[text.index("What this rests on") + 1 :]  # behind the list of sections
    order = ("Where they part", "Scores", "Differences", "Failures: once", "Step by step")
    places = [body.index(part) for part in order]
    assert places == sorted(places)
    alone = page_of(tmp_path, folders[0], "--names", "once")
    body = alone.text[alone.text.index("What this rests on") + 1 :]
    assert body.index("Pictures: once") < body.index("Scores")


def geneval(tmp_path: Path) -> list[object]:
    """Two prompts with an image each, large enough to be shrunk; one is right, one wrong."""
    lines, generated = [], []
    for index, found in enumerate(("dog", "cat")):
        folder = tmp_path / "images" / f"{index:05}" / "samples"
        folder.mkdir(parents=True)
        pixels = np.full((640, 480, 3), 90 + index, dtype=np.uint8)
        png = images.encode_png(pixels)
        (folder / "00000.png").write_bytes(png)
        name = f"{index:05}/samples/00000.png"
        include = [{"class": "dog", "count": 1}]
        prompt = f"a photo of a dog, {index}"
        box = {"label": found, "box": [1, 1, 9, 9], "score": 0.9}
        metadata = {"tag": "single_object", "include": include, "prompt": prompt}
        lines.append({"metadata": metadata, "detections": [box], "image": name})
        generated.append({"image": name, "prompt": prompt, "seed": 70 + index, "index": 0})
    steps = Trajectory(prompt=prompt, steps=(PLAN, Sketch(image=ImageRef(png=png)), Stop()))
    save_trajectory(tmp_path / "images/generation/steps/00001-samples-00000", steps)
    for path, rows in (("found.jsonl", lines), ("images/samples.jsonl", generated)):
        (tmp_path / path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = ["--detections", tmp_path / "found.jsonl", "--out", tmp_path / "scored.jsonl"]
    staged_eval(["geneval", *map(str, [*scored, "--result", tmp_path / "r.json"])])
    return [tmp_path / "r.json", "--samples", tmp_path / "scored.jsonl"]


def test_geneval_is_shown_with_images_reasons_and_seeds(tmp_path: Path) -> None:
    page = page_of(tmp_path, *geneval(tmp_path), "--images", tmp_path / "images")
    for part in (
        "Missing 1 of 1 shown.",
        "expected dog>=1, found 0 seed 71",
        "Right 1 of 1 shown",
        "1 of 1, spread evenly",
        "The detector ✗ wrong expected dog>=1, found 0",
        "draw the dog",
    ):
        assert part in page.text, part
    shown = page.all("img")
    assert len(shown) == 5  # of the part, wrong, right, and step by step twice
    assert [(image["width"], image["height"]) for image in shown] == [("240", "320")] * len(shown)
    assert all((image["src"] or "").startswith("data:image/webp") for image in shown)


def test_lines_without_images_give_counts_and_reasons(tmp_path: Path) -> None:
    page = page_of(tmp_path, *geneval(tmp_path))
    assert "1 without a picture to show: expected dog>=1, found 0 (1)" in page.text


def test_wise_is_shown_by_what_the_judge_found_wrong(tmp_path: Path) -> None:
    judged = tmp_path / "judged.jsonl"
    lines = [
        {"prompt_id": 1, "consistency": 0, "realism": 2, "aesthetic_quality": 2},
        {"prompt_id": 2, "consistency": 2, "realism": 2, "aesthetic_quality": 1},
        {"prompt_id": 3, "score": None, "reason": "no image"},
    ]
    judged.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(sketch(CIRCLE).image.png or b"")
    out = ["--version", "legacy", "--out", tmp_path / "wise.json", "--allow-unscored"]
    staged_eval(["wise", "--judgements", str(judged), *map(str, out)])
    page = page_of(
        tmp_path, tmp_path / "wise.json", "--samples", judged, "--images", tmp_path / "images"
    )
    assert VERSIONS["legacy"].category(1) == "culture"
    for part in ("No consistency 1 of 1 shown.", "culture 1", "consistency 0 of 2; realism 2 of 2"):
        assert part in page.text
    assert "No image 1 without a picture to show" in page.text


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda lines: lines[1:], "are the lines of another run"),
        (lambda lines: [lines[0] | {"kinds": "missing"}, *lines[1:]], r"kinds: expected list"),
        (
            lambda lines: [{k: v for k, v in lines[0].items() if k != "process"}, *lines[1:]],
            "--score-only",
        ),
    ],
)
def test_lines_that_do_not_fit_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, edit: object, message: str
) -> None:
    assert callable(edit)
    lines = [json.loads(line) for line in (folders[0] / "samples.jsonl").open()]
    changed = tmp_path / "samples.jsonl"
    changed.write_text("".join(json.dumps(line) + "\n" for line in edit(lines)))
    with pytest.raises(ValueError, match=message):
        open_run(folders[0], lines=changed)


def test_what_cannot_be_shown_together_is_refused(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    once, stages = map(str, folders)
    out = ["--out", str(tmp_path / "p.html")]
    with pytest.raises(ValueError, match="--names has 1 values for 2 results"):
        main([once, stages, "--names", "a", *out])
    with pytest.raises(ValueError, match="images without lines"):
        main([once, "--images", str(tmp_path), *out])
    with pytest.raises(ValueError, match="7 results; a page shows 1 to 6"):
        main([once] * 7 + out)
    geneval(tmp_path)
    with pytest.raises(ValueError, match="a page shows one benchmark"):
        main([once, str(tmp_path / "r.json"), *out])


def test_an_image_outside_its_folder_is_refused(tmp_path: Path) -> None:
    arguments = geneval(tmp_path)
    lines = (tmp_path / "scored.jsonl").read_text()
    (tmp_path / "scored.jsonl").write_text(lines.replace("00001/samples/", "../"))
    with pytest.raises(ValueError, match="leaves its folder"):
        page_of(tmp_path, *arguments, "--images", tmp_path / "images")


def test_stretches_cover_everything_once() -> None:
    assert stretches([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4, 5]]
    assert stretches([1, 2], 5) == [[1], [2]]
    assert stretches([], 3) == []
