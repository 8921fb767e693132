"""The folder of an evaluation: what was drawn, by what, and where.

drawn.json      what decides every picture: settings, flow and weights; and the versions
drawn/KEY/      one finished batch of trajectories each, as shards, named for its first sample;
                candidates that were not chosen are beside the chosen one, see `candidates`
drawn.lock      empty; held while it is decided whose batch or record stands
samples.jsonl   a line for each sample: score, reasons, and how its steps went; see `line`
result.json     the numbers
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.generation.claim import refuse_others
from eval.miniature.settings import MiniatureSettings
from staged.jobs import locks
from staged.jobs.files import read_json, sweep, temporary, text_in, write_json
from staged.settings import from_dict, to_dict
from staged.shards import ShardIndex, ShardWriter, read_manifest, read_shards
from staged.shards.folder import INDEX
from staged.trajectory import Trajectory

SAMPLES, RESULT = "samples.jsonl", "result.json"
_RECORD, _BATCHES, _LOCK = "drawn.json", "drawn", "drawn.lock"
_FREE = ("tasks", "num_per_task", "images_per_prompt")
"""Settings that say how much is drawn."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What decides every picture of a folder.

    Attributes:
        settings: Of the latest run that drew.
        flow: Steps, time grid and guidance, resolved.
        weights: SHA-256 (hex) of the model's and the autoencoder's tensors.
        versions: Package to version, of the latest run that drew.
        verifier: Name of who chose among candidates; empty where there were none.
        rewritten: SHA-256 (hex) of the words in which prompts were drawn; empty where those were
            the prompts' own.
    """

    settings: MiniatureSettings
    flow: Mapping[str, Any]
    weights: str
    versions: Mapping[str, str]
    verifier: str = ""
    rewritten: str = ""

    def decisive(self) -> dict[str, Any]:
        """What two records must agree on for their pictures to belong together."""
        settings = {k: v for k, v in self.settings.decides().items() if k not in _FREE}
        if self.settings.search is not None:
            settings["search"] = self.settings.search.decides(self.verifier)
        if self.settings.explore is not None:
            settings["explorer"] = self.verifier
        if self.settings.rewrites is not None:
            settings["rewrites"] = self.rewritten
        return {**settings, **self.flow, "weights": self.weights}


class BatchStore:
    """The drawn part of the folder."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is touched."""
        self.folder = folder

    def claim(self, record: Record) -> None:
        """Write down what will be drawn.

        Raises:
            ValueError: The folder's pictures were drawn otherwise; the message says what differs.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locks.held(self.folder / _LOCK):  # of two that begin at once, one is first
            if (self.folder / _RECORD).exists():
                refuse_others(self.folder, self.record().decisive(), record.decisive())
            data = {**vars(record), "settings": to_dict(record.settings)}
            write_json(self.folder / _RECORD, data)

    def begun_dtype(self) -> str | None:
        """Return the precision in which the folder's pictures are drawn; None without any.

        Raises:
            ValueError: The record is damaged.
        """
        return text_in(self.folder / _RECORD, "settings", "dtype")

    def record(self) -> Record:
        """Read what was drawn.

        Raises:
            ValueError: Nothing was, or the file is damaged.
        """
        path = self.folder / _RECORD
        data = read_json(path, missing=": nothing was drawn there; leave --score-only out")
        try:
            settings = from_dict(MiniatureSettings, data["settings"], str(path))
            return Record(
                settings=settings,
                flow=dict(data["flow"]),
                weights=str(data["weights"]),
                versions=dict(data["versions"]),
                verifier=str(data.get("verifier", "")),
                rewritten=str(data.get("rewritten", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error!r}); remove the folder") from None

    def add(self, drawn: Iterable[tuple[str, Trajectory]], *, name: str, seconds: float) -> None:
        """Keep a batch; it is there whole or not at all, whoever else is drawing it.

        Args:
            drawn: Key and trajectory of each sample.
            name: Of the batch; one that has it already stands, unless it is not whole.
            seconds: Time that drawing took.
        """
        batches = self.folder / _BATCHES
        batches.mkdir(parents=True, exist_ok=True)
        sweep(batches, lambda _: True)
        half = temporary(batches / name)
        with ShardWriter(half, title="drawn by staged eval miniature") as writer:
            for key, trajectory in drawn:
                writer.write(key, trajectory)
            writer.finish(cost=writer.stats.cost | {"seconds": seconds})
        with locks.held(self.folder / _LOCK):
            if not (batches / name / INDEX).is_file():
                shutil.rmtree(batches / name, ignore_errors=True)  # of a run that was killed
                half.rename(batches / name)
        shutil.rmtree(half, ignore_errors=True)  # where another was quicker

    def trajectories(self) -> dict[str, Trajectory]:
        """Everything drawn, by sample key."""
        return {
            sample.key: sample.trajectory
            for folder in self._batches()
            for sample in read_shards(folder)
        }

    def keys(self) -> list[str]:
        """Sample keys of everything drawn; no image is read."""
        return [key for folder in self._batches() for key in ShardIndex(folder).keys]

    def seconds(self) -> float:
        """Time that drawing took, over all batches."""
        return sum(read_manifest(folder).cost["seconds"] for folder in self._batches())

    def _batches(self) -> list[Path]:
        finished = (path.parent for path in (self.folder / _BATCHES).glob(f"*/{INDEX}"))
        return sorted(folder for folder in finished if not folder.name.startswith("."))
