"""What a folder of generated images holds beside them, so that every image can answer for itself.

generation/settings.json      what decides every image, and versions
generation/log-R-of-N.jsonl   a line for each attempt at a sample, by process R of N
generation/steps/             trajectories of images that were drawn in stages
samples.jsonl                 a line for each sample, once all were tried: `image` (its path),
                              `prompt`, and how it came about

A sample's line is on disk before its image is, and an image appears whole. So an image without a
line was not generated here, and one whose SHA-256 no line has was changed: both are errors. A line
without an image is an attempt that failed, or was killed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from eval.downloads import file_sha256
from eval.generation.claim import refuse_others
from eval.generation.samples import BenchmarkSample
from staged import images, strict_json
from staged.backends.generators.generator import DrawnImage, DrawOutcome
from staged.jobs import locks
from staged.jobs.files import read_json, sweep, text_in, write_json, write_json_lines, write_whole
from staged.jobs.rank import Rank
from staged.trajectory_folder import save_trajectory

FOLDER, SETTINGS, STEPS, SAMPLES = "generation", "settings.json", "steps", "samples.jsonl"
FORMAT = "staged-generation/1"
_MAX_LINE_BYTES = 1024 * 1024
_MAX_DETAIL = 500
_LINE = {
    "image": str,
    "prompt": str,
    "index": int,
    "seed": int,
    "final": bool,
    "cost": dict,
    "seconds": float,
}
_EITHER = {
    "sha256": str,
    "width": int,
    "height": int,
    "search": dict,
    "reason": str,
    "detail": str,
}

StoreLine = Mapping[str, Any]


def begun_dtype(folder: Path) -> str | None:
    """Return the precision in which a folder's images are drawn; None where none is known.

    Raises:
        ValueError: its record is damaged.
    """
    return text_in(folder / FOLDER / SETTINGS, "decides", "dtype")


class Store:
    """A folder of generated images, opened by one process of a run.

    Args:
        folder: Of the images; made if need be.
        rank: Which process this is; its log is its own.
    """

    def __init__(self, folder: Path, rank: Rank) -> None:
        """Name the folder; nothing is touched."""
        self.folder, self._rank = folder, rank
        self._ours = folder / FOLDER
        self._log_path = self._ours / f"log-{rank.number}-of-{rank.world_size}.jsonl"

    def __enter__(self) -> Self:
        """Open the log, and take half a line off its end, of a run that was killed.

        Raises:
            ValueError: the same process of the same run is at work already, or there are no locks
                on the file system.
        """
        self._ours.mkdir(parents=True, exist_ok=True)
        self._log = self._log_path.open("ab")
        try:
            if not locks.try_whole(self._log.fileno(), self._log_path):
                raise ValueError(
                    f"{self._log_path} is in use: another process is generating there as rank "
                    f"{self._rank.number} of {self._rank.world_size}; wait for it, or give it "
                    "another rank"
                )
        except ValueError:
            self._log.close()
            raise
        content = self._log_path.read_bytes()
        self._log.truncate(content.rfind(b"\n") + 1)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the log."""
        self._log.close()

    def claim(self, decides: Mapping[str, Any], also: Mapping[str, Any]) -> None:
        """Write down what decides the images.

        Args:
            decides: By name, plain JSON; all images of a folder have it in common.
            also: What else should be known: versions, names.

        Raises:
            ValueError: the folder's images were decided otherwise, or the record is damaged.
        """
        path, record = self._ours / SETTINGS, {"format": FORMAT, "decides": decides, "also": also}
        with locks.held(self._ours / "lock"):  # of two that begin at once, one is first
            if path.is_file():
                there = strict_json.record(
                    read_json(path), str(path), {"format": str, "decides": dict, "also": dict}
                )
                refuse_others(self.folder, there["decides"], decides)
                if there == record:
                    return
            write_json(path, record)

    def settled(self, samples: Sequence[BenchmarkSample]) -> dict[str, StoreLine]:
        """Say what needs no further attempt, by path: what is drawn, and what failed for good.

        Raises:
            ValueError: an image is not what was generated, or a log is damaged.
            OSError: a file cannot be read.
        """
        return {path: line for path, line in self.latest(samples).items() if line["final"]}

    def latest(self, samples: Sequence[BenchmarkSample]) -> dict[str, StoreLine]:
        """Return the line of each sample that was tried, by path: its image's, or the last failure.

        A killed attempt counts for nothing.
        """
        # Images first: a line is written before its image, so that none seen here lacks one there.
        found = {str(sample.path): file_sha256(self.folder / sample.path) for sample in samples}
        attempts = self._attempts()
        latest: dict[str, StoreLine] = {}
        for sample in samples:
            path = str(sample.path)
            lines = attempts.get(path, [])
            if found[path] is None:
                lines = [line for line in lines if line.get("sha256") is None]
            else:
                lines = [line for line in lines if line.get("sha256") == found[path]]
                if not lines:
                    self._refuse(sample, attempts.get(path, []))
            if lines:
                latest[path] = lines[-1]
        return latest

    def keep(self, sample: BenchmarkSample, outcome: DrawOutcome, *, seconds: float) -> None:
        """Keep what came of a sample; it is on disk when this returns.

        Args:
            sample: What was asked for.
            outcome: What came of it.
            seconds: Since this process began.

        Raises:
            OSError: the folder cannot be written.
        """
        line: dict[str, Any] = {
            "image": str(sample.path),
            "prompt": sample.prompt,
            "index": sample.image,
            "seed": sample.seed,
            "cost": dict(outcome.cost),
            "final": isinstance(outcome, DrawnImage) or outcome.final,
            "seconds": round(seconds, 3),
        }
        png = b""
        if isinstance(outcome, DrawnImage):
            png = images.encode_png(outcome.pixels)
            height, width = outcome.pixels.shape[:2]
            line |= {"sha256": hashlib.sha256(png).hexdigest(), "width": width, "height": height}
            line |= {"reason": outcome.note} if outcome.note else {}
            line |= {} if outcome.search is None else {"search": outcome.search}
            # A sketch and a stop are no news beside the image.
            if outcome.trajectory is not None and len(outcome.trajectory.steps) > 2:
                save_trajectory(self.steps(sample), outcome.trajectory)
        else:
            line |= {"reason": outcome.reason, "detail": outcome.detail[:_MAX_DETAIL]}
        self._log.write(strict_json.dump_lines([line]))
        self._log.flush()
        os.fsync(self._log.fileno())
        if png:
            write_whole(self.folder / sample.path, png)

    def steps(self, sample: BenchmarkSample) -> Path:
        """Return the folder of a sample's trajectory, whether it has one or not."""
        return self._ours / STEPS / "-".join(sample.path.with_suffix("").parts)

    def finish(self, samples: Sequence[BenchmarkSample]) -> list[StoreLine] | None:
        """Write `samples.jsonl` if every sample was tried; the last process finds that it was.

        It has no times, so runs that agree leave the same bytes.

        Returns:
            Those lines, in order; None where samples are left to other processes.
        """
        latest = self.latest(samples)
        if len(latest) < len(samples):
            return None
        kept: list[StoreLine] = [
            {name: value for name, value in latest[str(s.path)].items() if name != "seconds"}
            for s in sorted(samples, key=lambda s: s.number)
        ]
        write_json_lines(self.folder / SAMPLES, kept)
        return kept

    def sweep(self, samples: Sequence[BenchmarkSample]) -> None:
        """Remove halves of images, of a run that was killed while writing them."""
        names: dict[Path, set[str]] = {}
        for sample in samples:
            path = self.folder / sample.path
            names.setdefault(path.parent, set()).add(path.name)
        for folder, ours in names.items():
            sweep(folder, ours.__contains__)

    def _attempts(self) -> dict[str, list[StoreLine]]:
        """All lines of all processes, by path, in the order of files and lines."""
        attempts: dict[str, list[StoreLine]] = {}
        for path in sorted(self._ours.glob("log-*.jsonl")):
            # What follows the last line's end is being written, or was cut off by a kill.
            for line, place in strict_json.read_records(
                path, _LINE, _EITHER, max_bytes=_MAX_LINE_BYTES, whole=True
            ):
                if line.get("sha256") is None and line.get("reason") is None:
                    raise ValueError(f"{place}: neither an image's sha256 nor a failure's reason")
                attempts.setdefault(line["image"], []).append(line)
        return attempts

    def _refuse(self, sample: BenchmarkSample, lines: Sequence[StoreLine]) -> None:
        path = self.folder / sample.path
        if any("sha256" in line for line in lines):
            raise ValueError(
                f"{path} is damaged or was changed: it is not the image that was generated there "
                "(another SHA-256); remove it, and the same command draws it again"
            )
        raise ValueError(
            f"{path} was not generated here: no log below {self._ours} knows it; choose another "
            "--out, or bring images in with --generator folder"
        )
