"""A run as a report needs it: the result, what each image got, and the images themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from eval.compare import named_apart
from eval.miniature.store import RESULT, SAMPLES, BatchStore
from eval.report.samples import MAX_LINE_BYTES, ReportSample, read_samples
from eval.results import BenchmarkResult
from staged import images, strict_json
from staged.report.shrunk import shrunk
from staged.trajectory import ImageRef, Trajectory
from staged.trajectory_folder import load_trajectory

GENERATED = "samples.jsonl"
"""What `staged eval generate` leaves beside the images: prompt and seed of each, …"""
STEPS = "generation/steps"
"""… and a folder for each image that was drawn in stages."""
MAX_SIDE_PX = 320
"""Larger images are shown at this size."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run.

    Attributes:
        result: Its scores; `result.run` is its name on the page.
        samples: Each image; empty where there are no lines.
        trajectories: By name of the sample, where they were kept.
        folder: Of the images, where they lie in one.
    """

    result: BenchmarkResult
    samples: tuple[ReportSample, ...] = ()
    trajectories: Mapping[str, Trajectory] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def name(self) -> str:
        """What the page calls it."""
        return self.result.run

    def is_staged(self, sample: ReportSample) -> bool:
        """Whether the image was drawn in stages, and its steps were kept."""
        trajectory = self.trajectories.get(sample.name)
        if trajectory is not None:
            return trajectory.last_plan is not None
        steps = self._steps(sample)
        return steps is not None and steps.is_dir()

    def trajectory(self, sample: ReportSample) -> Trajectory:
        """Return the steps of an image that `is_staged`, its pictures made small.

        Raises:
            ValueError: they are damaged.
        """
        trajectory = self.trajectories.get(sample.name)
        if trajectory is not None:
            return trajectory
        steps = self._steps(sample)
        if steps is None:
            raise ValueError(f"{sample.name}: no steps were kept; see is_staged")
        trajectory = load_trajectory(steps)
        return trajectory.with_images(
            [
                ImageRef(png=shrunk(image.png or b"", MAX_SIDE_PX, str(steps)))
                for image in trajectory.images
            ]
        )

    def _steps(self, sample: ReportSample) -> Path | None:
        if self.folder is None or not sample.image:
            return None
        return self.folder / STEPS / "-".join(_below(sample.image).with_suffix("").parts)

    def picture(self, sample: ReportSample) -> bytes | None:
        """Return an image, made small where it is large; None where there is none.

        Raises:
            ValueError: the file is no image.
            OSError: it cannot be read.
        """
        trajectory = self.trajectories.get(sample.name)
        if trajectory is not None:
            return None if trajectory.last_sketch is None else trajectory.last_sketch.image.png
        if self.folder is None or not sample.image:
            return None
        path = self.folder / _below(sample.image)
        return shrunk(images.read_file(path), MAX_SIDE_PX, str(path)) if path.is_file() else None


def open_run(
    path: Path, *, name: str = "", lines: Path | None = None, images_folder: Path | None = None
) -> Run:
    """Read a run.

    Args:
        path: Its result file, or the folder of `staged eval miniature`.
        name: What the page shall call it; the result's own when empty.
        lines: What each image got; found beside the result where it is of the miniature.
        images_folder: Where the images lie that the lines name.

    Raises:
        ValueError: a file is not as it must be, images are given without lines, or there are none
            of those that the lines name.
        OSError: a file cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    result = BenchmarkResult.read(path / RESULT if path.is_dir() else path)
    result = replace(result, run=name or result.run or path.stem)
    if images_folder is not None and lines is None:
        raise ValueError(f"{images_folder}: images without lines of samples say nothing; name both")
    if lines is None and result.benchmark == "miniature" and (folder / SAMPLES).is_file():
        samples = read_samples(folder / SAMPLES, result)
        return Run(result=result, samples=samples, trajectories=BatchStore(folder).trajectories())
    if lines is None:
        return Run(result=result)
    samples = read_samples(lines, result)
    if images_folder is not None:
        generated = _generated(images_folder)
        samples = tuple(_with_facts(sample, generated) for sample in samples)
        named = [sample.image for sample in samples if sample.image]
        if not any((images_folder / _below(image)).is_file() for image in named):
            such = f", such as {named[0]!r:.80}" if named else ""
            raise ValueError(f"{images_folder} has none of the images that {lines} names{such}")
    return Run(result=result, samples=samples, folder=images_folder)


def open_runs(
    paths: Sequence[Path],
    *,
    names: Sequence[str] = (),
    lines: Sequence[Path] = (),
    image_folders: Sequence[Path] = (),
) -> list[Run]:
    """Read several runs and name them apart.

    Args:
        paths: Of results.
        names: One of each, or none.
        lines: The same.
        image_folders: The same.

    Raises:
        ValueError: the numbers do not fit, or as `open_run`.
        OSError: a file cannot be read.
    """
    for option, given in (("names", names), ("samples", lines), ("images", image_folders)):
        if given and len(given) != len(paths):
            raise ValueError(
                f"--{option} has {len(given)} values for {len(paths)} results; give one for each"
            )
    runs = [
        open_run(
            path,
            name=names[i] if names else "",
            lines=lines[i] if lines else None,
            images_folder=image_folders[i] if image_folders else None,
        )
        for i, path in enumerate(paths)
    ]
    results = named_apart([run.result for run in runs], paths)
    return [replace(run, result=result) for run, result in zip(runs, results, strict=True)]


def _below(image: str) -> PurePosixPath:
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts or "\\" in image:
        raise ValueError(f"image {image!r:.80} leaves its folder; expected a path below it")
    return path


def _generated(folder: Path) -> dict[str, tuple[str, int]]:
    """Prompt and seed of each image, where `staged eval generate` drew them."""
    path = folder / GENERATED
    if not path.is_file():
        return {}
    found: dict[str, tuple[str, int]] = {}
    wanted = {"image": str, "prompt": str, "seed": int}
    for line, _ in strict_json.read_records(path, wanted, max_bytes=MAX_LINE_BYTES, others=True):
        found[line["image"]] = line["prompt"], line["seed"]
    return found


def _with_facts(sample: ReportSample, generated: Mapping[str, tuple[str, int]]) -> ReportSample:
    if sample.image not in generated:
        return sample
    prompt, seed = generated[sample.image]
    return replace(sample, prompt=sample.prompt or prompt, seed=seed)
