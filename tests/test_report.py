"""The report: one file, everything in it, nothing that could run or load."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tiny import picture, staged_trajectory

from staged.report import (
    Cell,
    Curve,
    Dots,
    Galleries,
    Gallery,
    Notes,
    Picture,
    Report,
    Row,
    Series,
    Stacks,
    Table,
    Trajectories,
    main,
)
from staged.report.chart import chart, lanes, numbers, parts
from staged.shards import ShardWriter
from staged.trajectory import ImageRef, Plan, Trajectory
from staged.trajectory_folder import load_trajectory, save_trajectory

VOID = {"meta", "link", "img", "line", "polyline"}
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
    return Report(
        title=text,
        lead=text,
        sections=(
            Notes(title=text, paragraphs=[text]),
            Trajectories(title=text, trajectories=[trajectory, failed], captions=[text, text]),
            Trajectories(title=text, trajectories=[trajectory], folded=True, intro=text),
            Gallery(
                title=text,
                pictures=[Picture.from_array(picture(0), text, note=text, good=True)],
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
                    Gallery(title=text, pictures=[Picture.from_array(picture(0), text)], intro=text)
                ],
            ),
        ),
    )


def test_a_page_holds_every_step_of_a_trajectory() -> None:
    page = Page(everything().html())
    for step in staged_trajectory().steps:
        for value in (getattr(step, name, None) for name in ("instruction", "critique")):
            assert value is None or value in page.text
    assert page.text.count("revise") == 4  # two refusals, in both sections
    images = page.all("img")
    assert len(images) == 3 + 3 + 1 + 2  # sketches twice, a thumbnail, the galleries'
    assert all((image["alt"] and image["width"] == "16") or image["width"] for image in images)


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
    pictures = [Picture.from_array(picture(0, side, side), "x") for side in (48, 256)]
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
    assert page.all("div")[0]["tabindex"] == "0"  # a table that scrolls can be scrolled by keys
    assert {cell.get("scope") for cell in page.all("th")} == {"col", "row"}


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
    for part in ("0.50", "0.25 to 0.76", "n = 8", "–", "n/a"):
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
    assert (first.at, first.low, first.width, first.said) == (62.5, 25, 75, "0.25")
    assert (missing.at, missing.said) == (None, "–")
    page = Page(Report(title="t", sections=[dots]).html())
    assert any(a.get("aria-label") == "d: r: a 0.25, b not measured" for a in page.all("div"))
    with pytest.raises(ValueError, match="smaller and a greater"):
        Dots(title="d", columns=["a", "b"], rows=[row], x_label="x", span=(1, 1))


def test_parts_of_a_bar_make_up_the_whole() -> None:
    row = Row(label="r", cells=[Cell(value=n) for n in (1, 39, 0)])
    assert [(part.width, part.count, part.labelled) for part in parts(row)] == [
        (2.5, 1, False),
        (97.5, 39, True),
        (0, 0, False),
    ]
    empty = Row(label="r", cells=[Cell(value=0)])
    assert [part.width for part in parts(empty)] == [0]
    with pytest.raises(ValueError, match="a count from 0"):
        Stacks(title="s", columns=["a"], rows=[Row(label="r", cells=[Cell()])])


def test_a_signed_table_shows_signs() -> None:
    row = Row(label="r", cells=[Cell(value=0.1, low=-0.05, high=0.25, note="not sure")])
    table = Table(title="s", columns=["a"], rows=[row], signed=True)
    text = Page(Report(title="t", sections=[table]).html()).text
    assert "+0.10 -0.05 to +0.25 not sure" in text


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
    with pytest.raises(ValueError, match=r"holds neither trajectory\.json nor"):
        main([str(tmp_path)])
