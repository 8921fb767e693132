"""The shards of a job, written by one of its processes from what all of them recorded."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from data_pipelines.job_settings import JobSettings
from data_pipelines.prompts import PromptOf
from staged import strict_json
from staged.jobs import files, locks
from staged.jobs.ledger import Ledger
from staged.jobs.records import Records
from staged.jobs.results import UnitResult
from staged.settings import to_dict
from staged.shards import ShardWriter, read_index, read_manifest
from staged.trajectory import ImageRef, Trajectory

_WRITTEN = "shards.json"

Arranged = Callable[[Records], Callable[[int, Trajectory], Trajectory | None]]
"""Looks at everything that was recorded, and then says of each unit's trajectory what of it comes
into the shards: all, less, or nothing. It must depend on the records and the settings alone."""

Loaded = Callable[[Records, int, Trajectory], Trajectory]
"""Loads the images of a unit's trajectory, which it names by their hashes."""


def as_recorded(records: Records) -> Callable[[int, Trajectory], Trajectory | None]:
    """Take every trajectory as it is."""
    return lambda unit, trajectory: trajectory


def write_shards(
    settings: JobSettings,
    ledger: Ledger,
    folder: Path,
    prompt_of: PromptOf | None,
    arranged: Arranged,
    loaded: Loaded,
) -> None:
    """Write every accepted sample, in the order of the units, whoever made it and when.

    One process at a time writes; where the shards say already what the ledger says, none does.

    Raises:
        ValueError: a finished unit's prompt is another one now, or an image was lost; shards that
            were there are still there.
    """
    lock = ledger.folder / "shards.lock"
    with locks.held(lock, waiting_for=f"another process, which is writing {folder}"):
        ledger.refresh()
        digest, written = _digest(settings, ledger, prompt_of), ledger.folder / _WRITTEN
        if _stand(folder, written, digest):
            return
        written.unlink(missing_ok=True)
        # Shards only: others may be writing their settings.
        files.sweep(folder, lambda name: name.endswith(".tar"), everyones=True)
        _write(settings, ledger, folder, arranged, loaded)
        files.write_json(written, {"sha256": digest})


def trajectories(records: Records) -> Iterator[tuple[int, UnitResult, Trajectory]]:
    """Yield every unit's end and trajectory; images are named by their hashes, not loaded."""
    for unit, result in records.results():
        if result.sample is not None:
            yield unit, result, Trajectory.from_dict(result.sample)


def with_images(trajectory: Trajectory, records: Records) -> Trajectory:
    """Load the images that a trajectory names by their hashes."""
    return trajectory.with_images(
        [
            ImageRef(png=records.blob(str(ref.name).partition(".")[0]), name=ref.name)
            for ref in trajectory.images
        ]
    )


def acceptance(records: Records) -> dict[str, dict[str, int]]:
    """Count ends by stage and reason; `samples` holds accepted, rejected and failed."""
    counts: dict[str, Counter[str]] = {"samples": Counter()}
    for _, end in records.ends():
        counts["samples"][end.status] += 1
        if end.status != "accepted":
            counts.setdefault(end.stage, Counter())[end.reason] += 1
    return {stage: dict(sorted(rows.items())) for stage, rows in sorted(counts.items())}


def examples(records: Records) -> dict[tuple[str, str], str]:
    """Return what is known of one end of each stage and reason, where anything is."""
    found: dict[tuple[str, str], str] = {}
    for unit, end in records.ends():
        if end.has_detail and (end.stage, end.reason) not in found:
            found[end.stage, end.reason] = records.result(unit).detail
    return found


def from_records(records: Records, unit: int, trajectory: Trajectory) -> Trajectory:
    """Load images that the job's records keep."""
    return with_images(trajectory, records)


def _write(
    settings: JobSettings, records: Records, folder: Path, arranged: Arranged, loaded: Loaded
) -> None:
    arrange = arranged(records)
    with ShardWriter(
        folder,
        title=settings.title,
        fingerprints=(settings.fingerprint,),
        settings=_shown(settings),
        max_samples=settings.samples_per_shard,
        overwrite=True,
    ) as writer:
        for unit, result, trajectory in trajectories(records):
            if result.status != "accepted":
                continue
            sample = arrange(unit, trajectory)
            if sample is not None:
                writer.write(f"{unit:08d}", loaded(records, unit, sample))
        costs = records.costs()
        writer.finish(
            acceptance=acceptance(records),
            cost={
                "usd": sum(cost["usd"] for cost in costs.values()),
                **{f"{purpose} calls": cost["calls"] for purpose, cost in costs.items()},
            },
        )


def _shown(settings: JobSettings) -> dict[str, object]:
    data = to_dict(settings)
    # Neither decides what is in the shards.
    for name in ("budget", "concurrency"):
        data.pop(name, None)
    return data


def _digest(settings: JobSettings, records: Records, prompt_of: PromptOf | None) -> str:
    """Hash everything that the shards and the files beside them are made from."""
    digest = hashlib.sha256(strict_json.dumps([_shown(settings), records.costs()]).encode())
    for unit, result in records.results():
        asked = None if result.sample is None else result.sample.get("prompt")
        if prompt_of is not None and asked is not None and asked != prompt_of(unit).text:
            raise ValueError(
                f"prompt {unit} was {asked!r} when its sample was made and is "
                f"{prompt_of(unit).text!r} now: add prompts at the end, or start another folder"
            )
        digest.update(strict_json.dumps([unit, vars(result)]).encode())
    return digest.hexdigest()


def _stand(folder: Path, written: Path, digest: str) -> bool:
    """Say whether the shards of this digest are there, whole as far as sizes tell."""
    try:
        if files.read_json(written) != {"sha256": digest}:
            return False
        read_manifest(folder)
        entries = read_index(folder)
        return all((folder / entry.shard).stat().st_size == entry.bytes for entry in entries)
    except (FileNotFoundError, ValueError):
        return False
