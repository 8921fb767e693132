"""What a study consists of, step by step: what is done, what is left, and how long that takes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.miniature.line import SampleScore
from eval.miniature.run import draw_missing, score_all
from eval.miniature.settings import MiniatureSettings, samples
from eval.miniature.store import SAMPLES, BatchStore
from eval.paper.cell import scores_of
from eval.paper.settings import PaperSettings, PaperSpeed
from staged.command_line import exit_codes
from staged.command_line.console import console, session
from staged.jobs.files import read_json, write_json

_FLOW_STEPS = 20
"""Of a miniature's sketch, where its settings do not say."""
_TOKENS_A_SKETCH = 60
"""That a model writes about, where it works in stages."""


@dataclass(frozen=True, kw_only=True)
class Todo:
    """What is left of a step.

    Attributes:
        name: Of the step.
        words: What it does.
        left: How much of it is left, in words; empty where it is done.
        cpu_s: Seconds that this takes on one core, about.
        h100_s: The same on one H100.
    """

    name: str
    words: str
    left: str
    cpu_s: float
    h100_s: float


class BuildStep:
    """A build of a study.

    Args:
        settings: Of the study.
        name: Of the build.
    """

    def __init__(self, settings: PaperSettings, name: str) -> None:
        """Nothing is touched."""
        self.name, self._build = name, settings.builds[name]
        self._command, self._makes = settings.command(name), settings.made(name)
        self._mark = settings.out / "builds" / f"{name}.json"

    def todo(self) -> Todo:
        """Say whether it is done."""
        done = self._done()
        return Todo(
            name=self.name,
            words=self._words,
            left="" if done else "to be made, or gone on with",
            cpu_s=0 if done else self._build.cpu_hours * 3600,
            h100_s=0 if done else self._build.h100_minutes * 60,
        )

    def do(self, threads: int) -> None:
        """Run its command, which goes on where it was interrupted.

        Args:
            threads: Passed over: what a build uses, its own words say.

        Raises:
            ValueError: it did not succeed, or does not make what the study says.
        """
        if self._done():
            return
        from staged.cli.main import choose

        write_json(self._mark, {"command": self._command})
        with session() as inner:
            inner.ask(debug=console().debug)
            try:
                code = choose(self._command)
            except SystemExit as left:  # of the parser, which has said why
                code = left.code if isinstance(left.code, int) else exit_codes.FAILED
        if code != exit_codes.OK:
            raise ValueError(f"builds.{self.name}: `{self._words}` ended with {code}; see above")
        if not self._makes.exists():
            raise ValueError(
                f"`{self._words}` has not made {self._makes}; correct builds.{self.name}.makes"
            )

    @property
    def _words(self) -> str:
        return shlex.join(["staged", *self._command])

    def _done(self) -> bool:
        """Whether it was made; what a user put there is taken as it is.

        Raises:
            ValueError: It was begun by another command.
        """
        if self._mark.is_file() and read_json(self._mark) != {"command": self._command}:
            raise ValueError(
                f"{self._makes} was begun by another command than builds.{self.name} has now (it "
                f"is in {self._mark}); remove both, or choose another `out`"
            )
        return self._makes.exists()


class CellStep:
    """A cell of a study with one of its seeds.

    Args:
        settings: Of the study.
        name: Of the cell.
        seed: Of prompts and noise.
    """

    def __init__(self, settings: PaperSettings, name: str, seed: int) -> None:
        """Nothing is touched."""
        self.name = f"{name}, seed {seed}"
        self._study, self._cell, self._key = settings, settings.cells[name], (name, seed)
        self._settings: MiniatureSettings = settings.drawn_by(name, seed)
        self._folder: Path = settings.folder(name, seed)
        self._wanted = [sample.key for sample in samples(self._settings)]

    def todo(self) -> Todo:
        """Say how many images are missing."""
        there = self._scored()
        missing = len(set(self._wanted) - self._drawn())
        steps, tokens = self._image_takes(there)
        unscored = "" if missing or len(there) == len(self._wanted) else "its scores"
        return Todo(
            name=self.name,
            words=self._settings.name,
            left=f"{missing} of {len(self._wanted)} images" if missing else unscored,
            cpu_s=missing * _seconds(steps, tokens, self._study.cpu),
            h100_s=missing * _seconds(steps, tokens, self._study.h100),
        )

    def do(self, threads: int) -> None:
        """Draw what is missing, and score.

        Args:
            threads: Of torch; 0 leaves its own choice.

        Raises:
            ValueError: the checkpoint cannot draw, or the folder's pictures were drawn otherwise,
                by other weights too.
        """
        drawn = draw_missing(self._settings, self._folder, threads=threads)
        if drawn or len(self._scored()) < len(self._wanted):
            score_all(self._settings, self._folder)

    def _drawn(self) -> set[str]:
        return set(BatchStore(self._folder).keys())

    def _scored(self) -> list[SampleScore]:
        """Lines of what was drawn and scored; none where they are to be written anew."""
        if not (self._folder / SAMPLES).is_file():
            return []
        try:
            found = scores_of(self._study, *self._key)
        except ValueError:  # an older version's, or damaged: scoring writes them again
            return []
        return [item for item in found if item.planned is not None]

    def _image_takes(self, there: Sequence[SampleScore]) -> tuple[float, float]:
        """Flow steps and tokens of an image: as measured, or as expected."""
        if there:
            steps = sum(item.num_flow_steps for item in there) / len(there)
            return steps, sum(item.text_tokens for item in there) / len(there)
        search, sketches = self._settings.search, self._cell.sketches
        tokens = _TOKENS_A_SKETCH * sketches if self._settings.mode == "staged" else 0
        steps = (self._settings.num_flow_steps or _FLOW_STEPS) * sketches
        if search is not None:
            times = search.candidates or (search.total_flow_steps or 0) / steps
            return steps * times, tokens * times
        return steps, tokens


PaperStep = BuildStep | CellStep


def steps(settings: PaperSettings, only: Sequence[str] = ()) -> list[PaperStep]:
    """List what a study consists of, in the order in which it can be done.

    Args:
        settings: Of the study.
        only: Cells to be drawn, with what they need; all by default.

    Raises:
        ValueError: there is no such cell.
    """
    unknown = [name for name in only if name not in settings.cells]
    if unknown:
        raise ValueError(f"no cell {unknown[0]!r}; there are {', '.join(settings.cells)}")
    names = only or list(settings.cells)
    built: dict[str, None] = {}
    for name in names:
        for need in settings.cells[name].needs:
            built |= dict.fromkeys(_with_needs(settings, need))
    cells = [CellStep(settings, name, seed) for seed in settings.prompts.seeds for name in names]
    return [*(BuildStep(settings, name) for name in built), *cells]


def _with_needs(settings: PaperSettings, name: str) -> Iterator[str]:
    for need in settings.builds[name].needs:
        yield from _with_needs(settings, need)
    yield name


def _seconds(flow_steps: float, tokens: float, speed: PaperSpeed) -> float:
    return flow_steps / speed.flow_steps_per_s + tokens / speed.text_tokens_per_s
