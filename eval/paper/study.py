"""A study as it stands: what each section shows, the answer above all, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from eval.compare import compare
from eval.paper.cell import DrawnCell, read_cell
from eval.paper.figures import FIGURES, PaperFigure, figures
from eval.paper.pictures import ChosenSamples, chosen
from eval.paper.settings import PaperSection, PaperSettings
from eval.paper.tables import TABLES, table
from eval.report.answer import in_words
from eval.results import OVERALL
from eval.statistics import METHOD
from staged.report import Claim, Table

Shown = Table | PaperFigure | ChosenSamples


@dataclass(frozen=True, kw_only=True)
class ShownSection:
    """A section and what there is to show of it.

    Attributes:
        asked: As the settings have it.
        shown: In order; empty where nothing was drawn.
        missing: Labels of its cells that were not drawn, where what is shown does not say so.
    """

    asked: PaperSection
    shown: tuple[Shown, ...]
    missing: tuple[str, ...]


class DrawnStudy:
    """What was drawn of a study.

    Args:
        settings: Of the study.
        command: That writes it, for pages to say.
    """

    def __init__(self, settings: PaperSettings, command: str) -> None:
        """Read every cell that there is.

        Raises:
            ValueError: nothing was drawn, or not as the settings say.
            OSError: a file cannot be read.
        """
        self.settings, self.command = settings, command
        self.cells: dict[str, DrawnCell | None] = {
            name: read_cell(settings, name) for name in settings.cells
        }
        self.drawn = [one for one in self.cells.values() if one is not None]
        if not self.drawn:
            raise ValueError(f"nothing of {settings.out} was drawn and scored yet")
        self._labels = {name: one.label for name, one in settings.cells.items()}

    def claims(self) -> list[Claim]:
        """Say how cells compare, in the words of the first table that compares them."""
        found: list[Claim] = []
        section = next((s for s in self.settings.sections if s.minus is not None), None)
        if section is None or section.minus is None:
            return found
        reference = self.cells[section.minus]
        for name in section.cells:
            one = self.cells[name]
            if reference is None or one is None or one is reference:
                continue
            gain = compare(one.run.result, reference.run.result, across_variants=True)
            text, tone = in_words(one.label, reference.label, gain.estimates[OVERALL])
            found.append(Claim(text=text, tone=tone))
        return found

    def facts(self) -> str:
        """What all of it rests on, in a paragraph."""
        seeds = sorted({seed for one in self.drawn for seed in one.records})
        prompts = {len({item.prompt for item in one.scored}) for one in self.drawn}
        images = {len(one.scored) for one in self.drawn}
        left = [self._labels[name] for name, one in self.cells.items() if one is None]
        facts = (
            f"{_range(prompts)} prompts of the {self.settings.prompts.split} split and "
            f"{_range(images)} images a cell, seed{'s' * (len(seeds) > 1)} "
            f"{', '.join(map(str, seeds))}. Brackets and bars are intervals ({METHOD}); a "
            "difference is paired prompt by prompt, and clear where its interval leaves out zero."
        )
        return facts + (f" Not drawn yet: {'; '.join(left)}." if left else "")

    def sections(self) -> Iterator[ShownSection]:
        """Make what each section shows.

        Raises:
            ValueError: cells cannot be compared.
            OSError: pictures cannot be read.
        """
        for asked in self.settings.sections:
            shown = tuple(self._shown(asked))
            # Most tables say it in a row or column of their own.
            said = shown and asked.kind in TABLES and asked.kind != "equal cost"
            absent = () if said else (name for name in asked.cells if self.cells[name] is None)
            missing = tuple(self._labels[name] for name in absent)
            yield ShownSection(asked=asked, shown=shown, missing=missing)

    def _shown(self, asked: PaperSection) -> Iterator[Shown]:
        drawn = [one for name in asked.cells if (one := self.cells[name]) is not None]
        if asked.kind in TABLES:
            made = table(asked, self.cells, self._labels)
            yield from () if made is None else (made,)
        elif asked.kind in FIGURES:
            yield from figures(asked, drawn)
        else:
            for one in drawn:
                yield from chosen(one, number=asked.number)

    def origins(self) -> list[str]:
        """Weights, precision and versions behind each cell, a line each."""
        lines = []
        for one in self.drawn:
            for record in one.records.values():
                words = [record.settings.checkpoint, f"weights {record.weights[:12]}"]
                words += [record.settings.dtype]
                words += [f"verifier {record.verifier}"] if record.verifier else []
                line = f"{one.label}: {', '.join(words)}"
                if line not in lines:
                    lines.append(line)
        versions = {
            ", ".join(f"{name} {version}" for name, version in record.versions.items())
            for one in self.drawn
            for record in one.records.values()
        }
        return [*lines, *(f"versions: {found}" for found in sorted(versions))]


def _range(numbers: set[int]) -> str:
    least, most = min(numbers), max(numbers)
    return str(least) if least == most else f"{least} to {most}"
