"""A cell as it was drawn: every sample of every seed, read from the lines that were left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from eval.miniature.line import SampleScore, read_scores
from eval.miniature.report import result_of
from eval.miniature.settings import samples
from eval.miniature.store import SAMPLES, BatchStore, Record
from eval.paper.settings import PaperSettings
from eval.report.runs import Run
from eval.report.samples import from_score
from eval.results import BenchmarkResult
from staged.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class DrawnCell:
    """A cell of which there is something.

    Attributes:
        name: In the study.
        label: In tables.
        records: What decided the pictures of each seed.
        scored: All samples; keys begin with the seed.
        folders: Of each seed.
        at: Where it stands in a figure against some amount; None where it does not.
    """

    name: str
    label: str
    records: Mapping[int, Record]
    scored: tuple[SampleScore, ...]
    folders: Mapping[int, Path]
    at: float | None = None

    @cached_property
    def run(self) -> Run:
        """Scores and estimates over all seeds, as reports take them."""
        return Run(result=self._result(*self.records), samples=tuple(map(from_score, self.scored)))

    def of_seed(self, seed: int) -> BenchmarkResult | None:
        """Scores and estimates of one seed alone; None where it was not drawn."""
        return self._result(seed) if seed in self.records else None

    def _result(self, *seeds: int) -> BenchmarkResult:
        first = self.records[seeds[0]]
        begins = tuple(f"{seed}-" for seed in seeds)
        result = result_of(first, [item for item in self.scored if item.key.startswith(begins)])
        prompts = f"{first.settings.num_per_task} a task, seeds {', '.join(map(str, seeds))}"
        return replace(result, run=self.label, variant={**result.variant, "prompts": prompts})

    def trajectories(self) -> dict[str, Trajectory]:
        """Read the trajectories of all samples, by key."""
        return {
            f"{seed}-{key}": trajectory
            for seed, folder in self.folders.items()
            for key, trajectory in BatchStore(folder).trajectories().items()
        }


def read_cell(settings: PaperSettings, name: str) -> DrawnCell | None:
    """Read what was drawn and scored of a cell; None where nothing was.

    Raises:
        ValueError: lines are damaged, or were drawn otherwise than the study says.
        OSError: they cannot be read.
    """
    folders = {seed: settings.folder(name, seed) for seed in settings.prompts.seeds}
    folders = {seed: folder for seed, folder in folders.items() if (folder / SAMPLES).is_file()}
    if not folders:
        return None
    cell = settings.cells[name]
    return DrawnCell(
        name=name,
        label=cell.label,
        records={seed: _record(settings, name, seed) for seed in folders},
        scored=tuple(
            replace(item, key=f"{seed}-{item.key}")
            for seed in folders
            for item in scores_of(settings, name, seed)
        ),
        folders=folders,
        at=cell.at,
    )


def scores_of(settings: PaperSettings, name: str, seed: int) -> list[SampleScore]:
    """Read the lines of a cell that the study asks for: there may be more from before.

    Raises:
        ValueError: lines are damaged, or of an older version.
        OSError: they cannot be read.
    """
    wanted = {sample.key for sample in samples(settings.drawn_by(name, seed))}
    lines = read_scores(settings.folder(name, seed) / SAMPLES)
    return [item for item in lines if item.key in wanted]


def _record(settings: PaperSettings, name: str, seed: int) -> Record:
    """What decided the pictures, if it is what the study says now."""
    folder, asked = settings.folder(name, seed), settings.drawn_by(name, seed)
    record = BatchStore(folder).record()
    drawn = record.settings
    same = replace(
        asked,
        device=drawn.device,
        dtype=drawn.dtype if asked.dtype == "auto" else asked.dtype,
        **{key: getattr(drawn, key) for key in ("tasks", "num_per_task", "images_per_prompt")},
    )
    if same != drawn:
        differing = [key for key, value in vars(same).items() if value != getattr(drawn, key)]
        raise ValueError(
            f"{folder} was drawn otherwise than cells.{name} says ({', '.join(differing)}); remove "
            "the folder, or choose another `out`"
        )
    return record
