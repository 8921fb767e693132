"""A study: what is built, what is drawn with it, what is shown of that. Read without torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from eval.miniature.settings import MiniatureSettings
from eval.published import named
from staged.ranges import check_range
from staged.settings import SettingsError, from_dict
from staged.shapes.tasks import TASKS, Split, Task

TableKind = Literal["tasks", "cost", "equal cost", "process", "search", "seeds"]
FigureKind = Literal[
    "flow steps", "rounds", "plans", "inspections", "refinements", "length", "amount"
]
SectionKind = TableKind | FigureKind | Literal["pictures"]

_MOST_SERIES = 6
"""As many as can be told apart in a figure."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
_OUT = "{out}"
"""In words of builds and cells: the study's own folder."""


@dataclass(frozen=True, kw_only=True)
class PaperPrompts:
    """What every cell draws, so that cells are paired prompt by prompt."""

    split: Split = "test"
    """Whether prompts hold what training never shows."""
    tasks: tuple[Task, ...] = TASKS
    """Which tasks."""
    num_per_task: int = 40
    """Prompts of each, all different; a task may have fewer."""
    images_per_prompt: int = 2
    """Images of each prompt and seed."""
    seeds: tuple[int, ...] = (0,)
    """Each decides prompts and noise."""

    def __post_init__(self) -> None:
        """Check the seeds; the rest is checked with each cell."""
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; give one or more, each once")


@dataclass(frozen=True, kw_only=True)
class PaperBuild:
    """Something that a cell draws with, and the command that makes it."""

    command: tuple[str, ...]
    """Words after `staged`; the same words go on where they were interrupted. `{out}`, here and
    below, is the study's folder."""
    makes: str
    """Path of the file that is written last: where it is, the build is done."""
    cpu_hours: float
    """About how long it takes on one core, when nothing is there yet."""
    h100_minutes: float
    """The same on one H100, by arithmetic."""
    needs: tuple[str, ...] = ()
    """Builds that come first."""

    def __post_init__(self) -> None:
        """Check that there is a command, and the times."""
        if not self.command:
            raise ValueError("command is empty; give the words after `staged`")
        check_range(self, "cpu_hours", "h100_minutes", minimum=0)


@dataclass(frozen=True, kw_only=True)
class PaperCell:
    """One row of the tables: who draws, how."""

    label: str
    """What tables call it."""
    checkpoint: str
    """As `staged eval miniature` takes it, or below `{out}`."""
    needs: tuple[str, ...] = ()
    """Builds that make the checkpoint."""
    draw: dict[str, Any] = field(default_factory=dict)
    """Settings of `staged eval miniature`, such as `{mode: staged, inspect_plan: never}`."""
    sketches: float = 1.0
    """Pictures that an image takes about, for the time that drawing will take."""
    at: float | None = None
    """Where it stands in a figure of kind `amount`, such as how many samples taught it."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "sketches", "at", minimum=0)
        shared = {"checkpoint", "seed", *(one.name for one in fields(PaperPrompts))}
        if taken := sorted(shared & self.draw.keys()):
            raise ValueError(
                f"{self.label!r}: draw has {', '.join(taken)}; all cells share the prompts of "
                "`prompts`, and `checkpoint` has a place of its own"
            )


@dataclass(frozen=True, kw_only=True)
class PaperSection:
    """A table, a figure, or pictures."""

    kind: SectionKind
    """Tables: `tasks` scores by task, `cost` what an image took, `equal cost` scores within as many
    flow steps, `process` how the steps went, `search` what a better choice would be worth, `seeds`
    each seed alone, as if it had been drawn anew. Figures: accuracy against `flow steps`, after
    `rounds`, against an `amount` in which cells differ; `plans` how often rounds end in what was
    planned, `inspections` how often they were right, `refinements` what they mended and broke,
    `length` sketches against what is asked for. `pictures`: random successes and failures."""
    title: str
    """Its heading."""
    cells: tuple[str, ...]
    """Which cells, in order."""
    minus: str | None = None
    """For `tasks`: the cell that the others are compared with. `equal cost` compares with the first
    of `cells`."""
    published: tuple[str, ...] = ()
    """For `tasks`: systems of the full-size model whose published GenEval scores stand below; names
    as of `staged eval compare --published`. Other pictures and another detector: no difference to
    them is taken."""
    words: str = ""
    """Said before it."""
    number: int = 8
    """For `pictures`: how many of each kind."""
    x_label: str = ""
    """For `amount`: what `at` of the cells counts."""

    def __post_init__(self) -> None:
        """Check that something is shown."""
        if not self.cells:
            raise ValueError(f"{self.title!r}: cells is empty; name the cells to show")
        check_range(self, "number", minimum=1, maximum=64)
        if self.published and self.kind != "tasks":
            raise ValueError(f"{self.title!r}: published is for sections of kind tasks")
        for name in self.published:
            named(name, "geneval", {})
        if len(self.cells) > _MOST_SERIES and self.kind in get_args(FigureKind):
            raise ValueError(
                f"{self.title!r} shows {len(self.cells)} cells; a figure tells {_MOST_SERIES} apart"
            )


@dataclass(frozen=True, kw_only=True)
class PaperSpeed:
    """How fast a machine draws miniatures, for `--dry-run`."""

    flow_steps_per_s: float
    """Network evaluations of a flow, guidance included."""
    text_tokens_per_s: float
    """Tokens written, many side by side."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "flow_steps_per_s", "text_tokens_per_s", minimum=0, above=True)


@dataclass(frozen=True, kw_only=True)
class PaperSettings:
    """What `staged paper` builds, draws and writes."""

    title: str
    """Of the page."""
    out: Path
    """Folder of what is built and drawn (`cells/NAME/seed-S`), and of the page, `report.html`."""
    page: Path | None = None
    """Markdown page to write too; its figures go into the folder of the same name."""
    cells: dict[str, PaperCell]
    """By name."""
    sections: tuple[PaperSection, ...]
    """Of the page, in order."""
    builds: dict[str, PaperBuild] = field(default_factory=dict)
    """By name."""
    prompts: PaperPrompts = PaperPrompts()
    """What every cell draws."""
    intro: str = ""
    """Said first."""
    outro: str = ""
    """Said last."""
    cpu: PaperSpeed = PaperSpeed(flow_steps_per_s=75, text_tokens_per_s=150)
    """Of one core with fast bfloat16, about as measured."""
    h100: PaperSpeed = PaperSpeed(flow_steps_per_s=280, text_tokens_per_s=4000)
    """Of one H100, by arithmetic: launches of some 350 kernels bound an evaluation of this size."""

    def __post_init__(self) -> None:
        """Check that all names are known, and that every cell can be drawn.

        Raises:
            ValueError: they are not.
        """
        for name in (*self.cells, *self.builds):
            if not _NAME.fullmatch(name):
                raise ValueError(f"name {name!r}; use letters, digits, - and _: folders get it")
        for name, known in (*self._needed(), *self._shown()):
            if name not in known:
                raise ValueError(f"{name!r} is none of {', '.join(known) or 'nothing'}")
        for name in self.builds:
            self._check_order(name, ())
        for name in self.cells:
            for seed in self.prompts.seeds:
                self.drawn_by(name, seed)

    def drawn_by(self, name: str, seed: int) -> MiniatureSettings:
        """How a cell is drawn with one of the seeds.

        Raises:
            ValueError: its settings are wrong.
        """
        cell, prompts = self.cells[name], self.prompts
        data: dict[str, Any] = {
            "split": prompts.split,
            "tasks": list(prompts.tasks),
            "num_per_task": prompts.num_per_task,
            "images_per_prompt": prompts.images_per_prompt,
            "checkpoint": self._placed(cell.checkpoint),
            "seed": seed,
            **self._placed(cell.draw),
        }
        try:
            return from_dict(MiniatureSettings, data, f"cells.{name}.draw")
        except SettingsError as error:
            raise ValueError(str(error)) from None

    def folder(self, name: str, seed: int) -> Path:
        """Where a cell lies."""
        return self.out / "cells" / name / f"seed-{seed}"

    def command(self, name: str) -> list[str]:
        """Words after `staged` of a build."""
        return [str(self._placed(word)) for word in self.builds[name].command]

    def made(self, name: str) -> Path:
        """What is there when a build is done."""
        return Path(str(self._placed(self.builds[name].makes)))

    def _placed(self, value: Any) -> Any:
        """Put the study's folder where `{out}` stands, in plain data."""
        match value:
            case str():
                return value.replace(_OUT, str(self.out))
            case Mapping():
                return {key: self._placed(item) for key, item in value.items()}
            case list() | tuple():
                return [self._placed(item) for item in value]
            case _:
                return value

    def _needed(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for needs in (
            *(b.needs for b in self.builds.values()),
            *(c.needs for c in self.cells.values()),
        ):
            yield from ((name, self.builds) for name in needs)

    def _shown(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for section in self.sections:
            names = section.cells if section.minus is None else (*section.cells, section.minus)
            yield from ((name, self.cells) for name in names)

    def _check_order(self, name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"builds need one another: {' -> '.join((*above, name))}")
        for need in self.builds[name].needs:
            self._check_order(need, (*above, name))
