"""The page of a study in Markdown, with figures, numbers and pictures in a folder beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from eval.paper.pictures import ChosenSamples, sheet
from eval.paper.study import DrawnStudy, ShownSection
from eval.tables import FORMATS
from staged import images
from staged.jobs.files import write_whole
from staged.report import Curve, Table
from staged.report.chart import numbers
from staged.report.standalone import svg
from staged.report.tables import Cell, interval, number

_WHAT = ("value", "low", "high", "n")


def write_markdown(study: DrawnStudy, page: Path) -> None:
    """Write the page.

    Args:
        study: What it shows.
        page: Where to; the folder beside it has the page's name without its ending.

    Raises:
        ValueError: something cannot be shown.
        OSError: a file cannot be read or written.
    """
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    settings = study.settings
    parts = [f"# {settings.title}", settings.intro.strip()]
    parts.append("\n".join(f"- {claim.text}" for claim in study.claims()))
    parts.append(
        f"{study.facts()} Written by `{study.command}`; the numbers of each table and figure are "
        f"in [{folder.name}/]({folder.name}/)."
    )
    for place, section in enumerate(study.sections(), 1):
        parts += _section(f"{place:02d}-{_slug(section.asked.title)}", section, folder)
    parts.append(settings.outro.strip())
    parts += ["## What this rests on", "\n".join(f"- {line}" for line in study.origins())]
    write_whole(page, ("\n\n".join(filter(None, parts)) + "\n").encode())


def _section(stem: str, section: ShownSection, folder: Path) -> Iterator[str]:
    yield f"## {section.asked.title}"
    yield section.asked.words.strip()
    for count, shown in enumerate(section.shown, 1):
        name = stem if len(section.shown) == 1 else f"{stem}-{count}"
        if isinstance(shown, ChosenSamples):
            yield from _pictures(shown, folder)
            continue
        if shown.title != section.asked.title:
            yield f"### {shown.title}"
        made = shown if isinstance(shown, Table) else numbers(shown, whole=True)
        header = [made.corner or "cell", *(f"{c} {w}" for c in made.columns for w in _WHAT)]
        rows = [[r.label, *(text for c in r.cells for text in _numbers(c))] for r in made.rows]
        write_whole(folder / f"{name}.csv", f"{FORMATS['csv'](header, rows)}\n".encode())
        if isinstance(shown, Curve):
            write_whole(folder / f"{name}.svg", svg(shown).encode())
            yield f"![{shown.title}]({folder.name}/{name}.svg)"
        else:
            lines = [[row.label, *(_text(cell, made) for cell in row.cells)] for row in made.rows]
            yield FORMATS["markdown"]([made.corner, *made.columns], lines)
    if section.missing:
        yield f"Not drawn yet: {'; '.join(section.missing)}."


def _pictures(shown: ChosenSamples, folder: Path) -> Iterator[str]:
    name = f"{shown.cell}-{'right' if shown.correct else 'wrong'}.png"
    write_whole(folder / name, images.encode_png(sheet(shown)))
    order = "a row each, as they were drawn" if shown.in_steps else "from left to right"
    yield f"**{shown.words}**, {order}:"
    yield f"![{shown.words}]({folder.name}/{name})"
    yield "\n".join(f"{place}. {words}" for place, words in enumerate(shown.captions(), 1))


def _text(cell: Cell, made: Table) -> str:
    if cell.text or cell.value is None:
        return cell.text or "–"
    signed = made.signed or cell.signed
    parts = [
        number(cell.value, made.digits, signed=signed),
        interval(cell, made.digits, signed=signed),
        "" if cell.count is None else f"({cell.count})",
        cell.note,
    ]
    return " ".join(filter(None, parts))


def _numbers(cell: Cell) -> list[str]:
    if cell.value is None:
        return [cell.text, "", "", ""]
    ends = ["" if end is None else repr(end) for end in (cell.low, cell.high)]
    return [repr(cell.value), *ends, "" if cell.count is None else str(cell.count)]


def _slug(title: str) -> str:
    kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in title.lower())
    return "-".join(filter(None, kept.split("-")))[:50]
