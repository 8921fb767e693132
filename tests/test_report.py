"""The report: one file, everything in it, nothing that could run or load."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tiny import picture, staged_trajectory

from staged.images import encode_png
from staged.report import (
    Cell,
    Claim,
    Claims,
    Curve,
    Dots,
    Galleries,
    Gallery,
    GalleryPicture,
    Notes,
    Opinion,
    Outcome,
    Report,
    Row,
    Series,
    Stacks,
    Table,
    Trajectories,
    drawn_report,
    main,
)
from staged.report.chart import chart, lanes, numbers, parts
from staged.report.page import STEP_PX
from staged.report.rounds import ending, rounds
from staged.report.shrunk import shrunk
from staged.report.tables import number
from staged.shards import ShardWriter
from staged.trajectory import ImageRef, Inspection, Plan, Refinement, Sketch, Stop, Trajectory
from staged.trajectory_folder import load_trajectory, save_trajectory

PNG = ImageRef.from_array(picture(0))
VOID = {"input", "meta", "link", "img", "line", "polyline"}
ATTACK = '<script>alert(1)</script>" onload="x'


class Page(HTMLParser):
    """Checks nesting, and gathers what a test asks about."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # A mark that was escaped as if it were text does not close its attribute.
        assert not [value for name, value in attrs if name in ("class", "id") and '"' in value], tag
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def everything(text: str = "plain") -> Report:
    trajectory = staged_trajectory()
    failed = Trajectory(
        prompt=text,
        steps=(Plan(instruction=text, description=text),),
        provenance={"failure": text, "failure_detail": text},
    )
    opinion = Opinion(who=text, mark=text, good=False, words=text)
    return Report(
        title=text,
        lead=text,
        kind=text,
        opening=Claims(claims=[Claim(text=text, tone="bad", detail=text)]),
        sections=(
            Notes(title=text, paragraphs=[text]),
            Trajectories(
                title=text,
                trajectories=[trajectory, failed],
                outcomes=[
                    Outcome.of(one, facts=[(text, text)], opinions=[opinion])
                    for one in (trajectory, failed)
                ],
            ),
            Trajectories(title=text, trajectories=[trajectory], folded=True, intro=text),
            Gallery(
                title=text,
                pictures=[GalleryPicture(png=PNG.loaded, caption=text, note=text, good=True)] * 2,
                together=2,
            ),
            Curve(
                title=text,
                series=[Series(name=text, points=[(0, 2.0), (10, 1.0)])],
                x_label=text,
                y_label=text,
            ),
            Table(
                title=text,
                corner=text,
                columns=[text],
                rows=[
                    Row(
                        label=text,
                        cells=[Cell(value=0.5, low=0.25, high=0.75, count=8, note=text)],
                    )
                ],
            ),
            Dots(
                title=text,
                columns=[text],
                rows=[Row(label=text, cells=[Cell(value=0.5, low=0.25, high=0.75)])],
                x_label=text,
                corner=text,
                intro=text,
            ),
            Stacks(
                title=text,
                columns=[text],
                rows=[Row(label=text, cells=[Cell(value=3)])],
                corner=text,
                intro=text,
            ),
            Galleries(
                title=text,
                intro=text,
                galleries=[
                    Gallery(
                        title=text,
                        pictures=[GalleryPicture(png=PNG.loaded, caption=text)],
                        intro=text,
                    )
                ],
            ),
        ),
    )


def test_curves_that_follow_one_another_stand_side_by_side() -> None:
    series = [Series(name="a", points=[(0, 1.0)])]
    curve = Curve(title="a", series=series, x_label="x", y_label="y")
    notes = Notes(title="b", paragraphs=[])
    page = Page(Report(title="t", sections=[curve, curve, notes, curve]).html())
    assert [section.get("class") for section in page.all("section")] == ["half", "half", None, None]


def test_a_page_holds_every_step_of_a_trajectory() -> None:
    page = Page(everything().html())
    for step in staged_trajectory().steps:
        for value in (getattr(step, name, None) for name in ("instruction", "critique")):
            assert value is None or value in page.text
    assert page.text.count("revise") == 4  # two refusals, in both sections
    images = page.all("img")
    # A sheet's picture and a large one, sketches twice, a thumbnail, the galleries'.
    assert len(images) == 2 + 3 + 3 + 1 + 3
    assert all(image["width"] and image["height"] for image in images)
    assert sum(image["alt"] == "" for image in images) == 1  # of the sheet: the prompt is beside


def test_a_page_loads_nothing_and_runs_nothing() -> None:
    html = everything().html()
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "form")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            value = attributes.get(name) or "data:"
            assert value.startswith(("data:", "#")), f"{tag} loads {value:.60}"
    assert not re.search(r"@import|url\(", html)


def test_text_from_outside_stays_text() -> None:
    html = everything(ATTACK).html()
    page = Page(html)
    assert not page.all("script")
    assert not any("onload" in attributes for _, attributes in page.tags)
    assert "<script>alert(1)</script>" in page.text


def test_small_images_are_enlarged_without_smoothing_and_large_ones_are_not() -> None:
    pictures = [
        GalleryPicture(png=encode_png(picture(0, side, side)), caption="x") for side in (48, 256)
    ]
    page = Page(Report(title="t", sections=[Gallery(title="g", pictures=pictures)]).html())
    assert ["pixels" in (image["class"] or "") for image in page.all("img")] == [True, False]


def test_a_page_can_be_used_with_a_keyboard_and_a_screen_reader() -> None:
    page = Page(everything().html())
    assert page.all("html")[0]["lang"] == "en"
    assert next(a["href"] for a in page.all("a")) == "#main"
    assert len(page.all("h1")) == 1 and len(page.all("h2")) == 9
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(section["aria-labelledby"] in ids for section in page.all("section"))
    assert page.all("svg")[0]["aria-label"] == "plain: plain from 2 to 1"
    assert {cell.get("scope") for cell in page.all("th")} == {"col", "row"}


def in_order(text: str, *parts: str) -> None:
    """Check that a page says these things one after another."""
    at = 0
    for part in parts:
        found = text.find(part, at)
        assert found >= 0, (
            f"{part!r} is not on the page, or not behind {text[max(0, at - 60) : at]!r}"
        )
        at = found + len(part)


def drawn(**provenance: object) -> Trajectory:
    """Two rounds; the plan of the first and the sketch of the second are mended."""
    steps = (
        Plan(instruction="draw a ring", description="a ring"),
        Inspection(target="plan", verdict="revise", critique="not a ring"),
        Refinement(instruction="a circle then"),
        Plan(instruction="draw a circle", description="a circle"),
        Sketch(image=PNG, num_flow_steps=20),
        Plan(instruction="add a star", description="both"),
        Sketch(image=PNG, num_flow_steps=20),
        Inspection(target="sketch", verdict="revise", critique="no star"),
        Refinement(instruction="put it there"),
        Sketch(image=PNG, num_flow_steps=20),
        Inspection(target="sketch", verdict="accept", critique="the image fits"),
        Stop(),
    )
    made = {"ended_by": "model", "seeds": {"rollout": 7}, **provenance}
    return Trajectory(prompt="a circle and a star", steps=steps, provenance=made)


def test_steps_are_grouped_by_round() -> None:
    first, second = rounds(drawn(deltas=["add o1", "add o2"]))
    assert [attempt.kind for attempt in first.attempts] == ["plan", "plan", "sketch"]
    assert [attempt.kind for attempt in second.attempts] == ["plan", "sketch", "sketch"]
    assert (first.title, second.title, second.note) == ("Round 1", "Round 2", "add o2")
    refused, mended, _ = first.attempts
    assert refused.inspection is not None and refused.inspection.critique == "not a ring"
    assert mended.refinement is not None and mended.refinement.instruction == "a circle then"
    assert mended.inspection is None
    assert second.attempts[0].refinement is None
    [at_once] = rounds(Trajectory(prompt="p", steps=(Sketch(image=PNG), Stop())))
    assert at_once.title == "Drawn at once"
    assert rounds(Trajectory(prompt="p")) == []


def test_every_step_of_every_prefix_is_shown() -> None:
    whole = drawn()
    for length in range(len(whole.steps) + 1):
        cut = Trajectory(prompt="p", steps=whole.steps[:length])
        attempts = [attempt for one in rounds(cut) for attempt in one.attempts]
        for name, kind in (
            ("plan", Plan),
            ("sketch", Sketch),
            ("refinement", Refinement),
            ("inspection", Inspection),
        ):
            found = [getattr(attempt, name) for attempt in attempts]
            assert [step for step in found if step is not None] == [
                step for step in cut.steps if isinstance(step, kind)
            ]
        Page(drawn_report([cut]).html())


def test_a_page_of_one_trajectory_opens_with_its_picture_and_verdicts() -> None:
    verdict = {"correct": False, "reasons": ["the star is missing"]}
    html = drawn_report([drawn(detector=verdict)], notes=["with great care"]).html()
    page = Page(html)
    in_order(
        page.text,
        "a circle and a star seed 7 rounds 2 sketches 3 flow steps 60",
        "The model ✓ accepts it the image fits",
        "The detector ✗ wrong the star is missing",
        "How it came about Round 1",
        "draw a circle",
        "Round 2",
        "add a star",
        "Stopped by the model",
        "with great care",
    )
    assert len(page.all("h1")) == 1
    first = page.all("img")[0]
    assert first["alt"] == "Final picture: a circle and a star"
    assert html.index("<img") < html.index("<h1") < html.index("<main")


def test_provenance_may_be_anything() -> None:
    for odd in ("x", 3, [1], {"correct": "yes"}, {"correct": True, "reasons": "none"}, None):
        page = Page(drawn_report([drawn(detector=odd, seeds=odd, models=odd, deltas=odd)]).html())
        assert "The model ✓ accepts it" in page.text
    right = {"correct": True, "reasons": []}
    said = Outcome.of(drawn(detector=right)).opinions[-1]
    assert (said.who, said.mark, said.good) == ("The detector", "right", True)


def test_who_inspected_is_named_where_it_was_not_the_model() -> None:
    models = {"inspector": "scripted", "sketcher": "miniature:staged"}
    assert Outcome.of(drawn(models=models)).opinions[0].who == "The inspector (scripted)"
    never = Trajectory(prompt="p", steps=(Sketch(image=PNG), Stop()))
    assert Outcome.of(never).opinions == []


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("protocol", "the model wrote a text that is none of the steps"),
        ("limit", "no flow steps were left"),
        ("something new", "something new"),
    ],
)
def test_a_run_that_ended_early_says_why_and_what_its_picture_is(reason: str, words: str) -> None:
    provenance = {"failure": reason, "failure_detail": "character 0", "ended_by": "failure"}
    steps = (Plan(instruction="i", description="d"), Sketch(image=PNG))
    early = Trajectory(prompt="p", steps=steps, provenance=provenance)
    text = Page(drawn_report([early]).html()).text
    assert f"The run ended early {words}" in text
    assert "(character 0). The picture is the last one before that" in text
    assert "FAILED" not in text.upper() and ending(early) == ""
    nothing = Trajectory(prompt="p", provenance=provenance)
    text = Page(drawn_report([nothing]).html()).text
    assert "No picture" in text and "Nothing was drawn before that" in text


def test_large_pictures_are_shrunk_except_the_one_that_a_page_opens_with() -> None:
    wide = picture(0, 2 * STEP_PX, STEP_PX)
    steps = (Sketch(image=ImageRef.from_array(wide)), Stop())
    sides = [
        (image["width"], image["height"])
        for image in Page(drawn_report([Trajectory(prompt="p", steps=steps)]).html()).all("img")
    ]
    assert sorted(sides, key=str) == sorted(
        [(str(wide.shape[1]), str(wide.shape[0])), *[_fitted(wide.shape)]], key=str
    )
    data = PNG.png or b""
    assert shrunk(data, 100) is data
    with pytest.raises(ValueError, match="x: not a PNG"):
        shrunk(b"no image", 100, "x")


def _fitted(shape: tuple[int, ...]) -> tuple[str, str]:
    scale = STEP_PX / max(shape)
    return str(round(shape[1] * scale)), str(round(shape[0] * scale))


def test_numbers_are_written_as_papers_do() -> None:
    said = [number(x, 2) for x in (0.469, -0.05, 1.0, 46.32, 0.0, -0.001, 0.0049)]
    assert said == [".47", "−.05", "1.00", "46.32", "0", "0", "0"]
    assert [number(x, 2, signed=True) for x in (0.469, -0.05, 0.0)] == ["+.47", "−.05", "0"]
    assert number(0.25, 1) == "0.2"


def test_an_image_that_is_not_loaded_is_an_error() -> None:
    named = ImageRef(name="0.png")
    trajectory = staged_trajectory()
    bare = trajectory.with_images([named] * len(trajectory.images))
    with pytest.raises(ValueError, match=r"0\.png"):
        Report(title="t", sections=[Trajectories(title="s", trajectories=[bare])]).html()


def test_a_table_shows_intervals_counts_and_what_was_not_measured() -> None:
    cells = [Cell(value=0.5, low=0.25, high=0.756, count=8), Cell(), Cell(text="n/a")]
    table = Table(
        title="s", columns=["a", "b", "c"], rows=[Row(label="r", cells=cells)], corner="x"
    )
    text = Page(Report(title="t", sections=[table]).html()).text
    for part in (".50 [.25, .76] n = 8", "–", "n/a"):
        assert part in text
    with pytest.raises(ValueError, match="row 'r' has 1 cells for 2 columns"):
        Table(title="s", columns=["a", "b"], rows=[Row(label="r", cells=[Cell()])])


def test_a_curve_is_read_from_a_training_log_and_thinned_by_averaging(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = [{"step": i, "mse": 2.0 - i / 2000, "ce": 0.0, "other": 1} for i in range(3000)]
    log.write_text("\n".join(map(json.dumps, lines)))
    curve = Curve.from_log(log, {"mse": "image loss", "ce": "text loss"})
    drawn = chart(curve)
    assert len(drawn.lines[0].points.split()) <= 600
    assert drawn.summary == "image loss from 2 to 0.5005; text loss from 0 to 0"
    heights = [float(point.split(",")[1]) for point in drawn.lines[0].points.split()]
    assert heights == sorted(heights)  # a falling loss goes down the page
    assert {tick.label for tick in drawn.x_ticks} >= {"0", "1000", "2000"}
    log.write_text('{"step": 1, "mse": "high"}')
    with pytest.raises(ValueError, match=r"log\.jsonl:1 is no line of a training log"):
        Curve.from_log(log, {"mse": "loss"})


def test_a_curve_of_one_point_or_none_is_drawn() -> None:
    for points in ([], [(1.0, 3.0)], [(1.0, float("nan"))]):
        curve = Curve(title="c", series=[Series(name="s", points=points)], x_label="x", y_label="y")
        html = Report(title="t", sections=[curve]).html()
        Page(html)
        assert "nan" not in html.lower()


def test_points_of_a_short_curve_are_marked_with_their_intervals() -> None:
    nothing = (float("nan"), float("nan"))
    series = [
        Series(name="a", points=[(20, 0.5), (40, 0.6)], intervals=[(0.4, 0.7), nothing]),
        Series(name="b", points=[(40, 0.6)], intervals=[(0.5, 0.75)]),
    ]
    curve = Curve(title="c", series=series, x_label="x", y_label="y", y_range=(0, 1))
    drawn = chart(curve)
    first, second = drawn.lines[0].marks
    assert first.low > first.y > first.high  # y grows downwards
    assert second.low == second.y == second.high
    assert drawn.lines[1].marks[0].x - second.x == 7  # at the same x they stand side by side
    assert [tick.label for tick in drawn.x_ticks] == ["20", "40"]
    assert (drawn.y_ticks[0].label, drawn.y_ticks[-1].label) == ("0", "1")
    assert [[cell.value for cell in row.cells] for row in numbers(curve).rows] == [
        [0.5, None],
        [0.6, 0.6],
    ]
    with pytest.raises(ValueError, match="2 points and 1 intervals"):
        Series(name="a", points=[(0, 1), (1, 1)], intervals=[(0, 1)])


def test_the_table_of_a_long_curve_holds_means_over_stretches() -> None:
    points = [(float(i), float(i)) for i in range(1201)]
    curve = Curve(title="c", series=[Series(name="s", points=points)], x_label="x", y_label="y")
    rows = numbers(curve).rows
    assert len(rows) == 12
    assert (rows[0].label, rows[-1].label) == ("0 to 100", "1100 to 1200")
    assert [rows[0].cells[0].value, rows[-1].cells[0].value] == [49.5, 1150]


def test_dots_lie_on_their_scale_and_stay_on_it() -> None:
    row = Row(label="r", cells=[Cell(value=0.25, low=-0.5, high=2.0), Cell()])
    dots = Dots(title="d", columns=["a", "b"], rows=[row], x_label="x", span=(-1, 1))
    first, missing = lanes(dots, row)
    assert (first.at, first.low, first.width, first.zero) == (62.5, 25, 75, 50)
    assert (first.said, first.beside) == (".25", "[−.50, 2.00]")
    assert (missing.at, missing.said) == (None, "–")
    page = Page(Report(title="t", sections=[dots]).html())
    assert any(
        a.get("aria-label") == "d: r: a .25 [−.50, 2.00], b not measured" for a in page.all("div")
    )
    with pytest.raises(ValueError, match="smaller and a greater"):
        Dots(title="d", columns=["a", "b"], rows=[row], x_label="x", span=(1, 1))


def test_parts_of_a_bar_make_up_the_whole() -> None:
    row = Row(label="r", cells=[Cell(value=n) for n in (1, 39, 0)])
    stacks = Stacks(title="s", columns=["a", "b", "c"], rows=[row])
    assert [(part.width, part.count, part.labelled) for part in parts(stacks, row)] == [
        (2.5, 1, False),
        (97.5, 39, True),
        (0, 0, False),
    ]
    empty = Row(label="r", cells=[Cell(value=0)])
    assert [part.width for part in parts(stacks, empty)] == [0]
    largest = Stacks(title="s", columns=["a"], rows=[empty], full=8)
    half = Row(label="r", cells=[Cell(value=4)])
    assert [part.width for part in parts(largest, half)] == [50]
    with pytest.raises(ValueError, match="a count from 0"):
        Stacks(title="s", columns=["a"], rows=[Row(label="r", cells=[Cell()])])


def test_a_signed_table_shows_signs() -> None:
    row = Row(label="r", cells=[Cell(value=0.1, low=-0.05, high=0.25, note="not sure")])
    table = Table(title="s", columns=["a"], rows=[row], signed=True)
    text = Page(Report(title="t", sections=[table]).html()).text
    assert "+.10 [−.05, +.25] not sure" in text


def test_a_trajectory_folder_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = save_trajectory(tmp_path / "t", staged_trajectory())
    assert load_trajectory(tmp_path / "t") == saved
    assert load_trajectory(tmp_path / "t" / "trajectory.json") == saved
    final = saved.last_sketch
    assert final is not None
    assert (tmp_path / "t" / "final.png").read_bytes() == final.image.png
    shorter = Trajectory(prompt="p", steps=saved.steps[:6])
    save_trajectory(tmp_path / "t", shorter)
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == [
        "0.png",
        "final.png",
        "trajectory.json",
    ]


def test_a_damaged_trajectory_folder_is_named(tmp_path: Path) -> None:
    save_trajectory(tmp_path, staged_trajectory())
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1\.png: not a PNG"):
        load_trajectory(tmp_path)
    (tmp_path / "1.png").unlink()
    with pytest.raises(ValueError, match=r"1\.png is missing"):
        load_trajectory(tmp_path)
    (tmp_path / "trajectory.json").write_text('{"version": 1, "prompts": "a star"}')
    with pytest.raises(ValueError, match=r"trajectory\.json: .*'prompts'; did you mean 'prompt'"):
        load_trajectory(tmp_path)


def test_the_command_shows_folders_and_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trajectory = staged_trajectory()
    save_trajectory(tmp_path / "run" / "00000", trajectory)
    save_trajectory(tmp_path / "run" / "00001", trajectory)
    with ShardWriter(tmp_path / "data", title="d") as writer:
        for key in ("a", "b", "c"):
            writer.write(key, trajectory)
    out = tmp_path / "page.html"
    assert (
        main([str(tmp_path / "run"), str(tmp_path / "data"), "--limit", "2", "--out", str(out)])
        == 0
    )
    assert capsys.readouterr().out.strip() == str(out)
    page = Page(out.read_text())
    assert len(page.all("article")) == 4
    assert "2 shown, 2 of them complete" in page.text
    links = [a["href"] for a in page.all("a") if (a["href"] or "").startswith("#shown-")]
    assert links == [f"#{article['id']}" for article in page.all("article")]
    with pytest.raises(ValueError, match=r"holds neither trajectory\.json nor"):
        main([str(tmp_path)])
