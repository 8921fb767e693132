"""Work on whole data sets: validate, count, merge (and so reshard)."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staged.scene_graph import SceneGraph
from staged.shards.counts import Stats
from staged.shards.folder import ShardEntry, read_index, read_manifest
from staged.shards.limits import Limits, OnError, Skipped
from staged.shards.reader import DEFAULT_LIMITS, read_shards
from staged.shards.writer import DEFAULT_MAX_BYTES, DEFAULT_MAX_SAMPLES, ShardWriter

_MAX_PROBLEMS = 100


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What a check of a data set found.

    Attributes:
        samples: Readable ones.
        skipped: Unreadable ones, by reason.
        problems: What is wrong, in words; at most the first hundred.
        stats: Counts over the readable samples.
    """

    samples: int
    skipped: dict[str, int]
    problems: tuple[str, ...]
    stats: Stats

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def validate(folder: Path | str, *, limits: Limits = DEFAULT_LIMITS) -> Validation:
    """Check everything: sums, counts, every sample, every image, graphs, the manifest.

    Damage in the data is reported, not raised.

    Raises:
        FileNotFoundError: the folder has no index: no data set, or an unfinished one.
        ValueError: the index is malformed.
    """
    folder = Path(folder)
    entries = read_index(folder)
    problems = damage(folder)
    found, counts = Stats(), Counter[str]()
    skipped = Skipped(max_examples=_MAX_PROBLEMS)
    for sample in read_shards(folder, on_error="skip", skipped=skipped, decode=True, limits=limits):
        counts[sample.shard] += 1
        found.add(sample.trajectory)
        if sample.trajectory.scene_graph is not None:
            try:
                SceneGraph.from_dict(sample.trajectory.scene_graph)
            except ValueError as error:
                problems.append(f"{sample.shard}, sample {sample.key!r}: {error}")
    problems += skipped.examples
    problems += [
        f"{entry.shard}: {counts[entry.shard]} readable samples, the index says {entry.samples}"
        for entry in entries
        if counts[entry.shard] != entry.samples
    ]
    try:
        manifest = read_manifest(folder)
        if manifest.stats != found.to_dict():
            problems.append("manifest.json: its counts differ from those of the samples")
    except (OSError, ValueError) as error:
        problems.append(f"manifest.json: {error}")
    return Validation(
        samples=sum(counts.values()),
        skipped=dict(skipped.counts),
        problems=tuple(problems[:_MAX_PROBLEMS]),
        stats=found,
    )


def damage(folder: Path | str) -> list[str]:
    """Compare the files with the index: what is missing, or has other bytes. Reads no sample.

    A data set without samples is damaged too: nothing can be made of it.

    Raises:
        FileNotFoundError: the folder has no index: no data set, or an unfinished one.
        ValueError: the index is malformed.
    """
    folder = Path(folder)
    entries = read_index(folder)
    if not sum(entry.samples for entry in entries):
        return ["no samples: the data set is empty"]
    return [problem for entry in entries for problem in _check_file(folder, entry)]


def stats(
    source: Path | str | Sequence[Path | str],
    *,
    on_error: OnError = "raise",
    skipped: Skipped | None = None,
) -> Stats:
    """Count over all samples of a data set; see `read_shards` for the arguments."""
    found = Stats()
    for sample in read_shards(source, on_error=on_error, skipped=skipped):
        found.add(sample.trajectory)
    return found


def merge(
    sources: Sequence[Path | str],
    out: Path | str,
    *,
    title: str,
    prefixes: Sequence[str] | None = None,
    max_samples: int = DEFAULT_MAX_SAMPLES,
    max_bytes: int = DEFAULT_MAX_BYTES,
    overwrite: bool = False,
) -> tuple[ShardEntry, ...]:
    """Write several data sets as one; with a single source this reshards it.

    Acceptance and cost are added up, fingerprints are kept, settings are kept by fingerprint.

    Args:
        sources: Folders of finished data sets, in order.
        out: Folder to write.
        title: Name of the result.
        prefixes: Put before the keys of each source, where keys would collide.
        max_samples: Most samples of a shard.
        max_bytes: Largest shard.
        overwrite: Replace a finished data set in `out`.

    Raises:
        ValueError: keys collide, `out` is among the sources, a source is damaged, or the number of
            prefixes is another.
    """
    if prefixes is not None and len(prefixes) != len(sources):
        raise ValueError(f"{len(prefixes)} prefixes for {len(sources)} data sets")
    if Path(out).resolve() in {Path(source).resolve() for source in sources}:
        raise ValueError(f"{out} is one of the sources; write the result elsewhere")
    acceptance: dict[str, Counter[str]] = {}
    cost: dict[str, float] = {}
    settings: dict[str, Any] = {}
    fingerprints: list[str] = []
    for source in sources:
        manifest = read_manifest(Path(source))
        fingerprints += [item for item in manifest.fingerprints if item not in fingerprints]
        if len(manifest.fingerprints) == 1:
            settings[manifest.fingerprints[0]] = manifest.settings
        else:
            settings |= manifest.settings
        for stage, outcomes in manifest.acceptance.items():
            acceptance.setdefault(stage, Counter()).update(outcomes)
        for unit, amount in manifest.cost.items():
            cost[unit] = cost.get(unit, 0) + amount
    with ShardWriter(
        out,
        title=title,
        fingerprints=tuple(fingerprints),
        settings=settings,
        max_samples=max_samples,
        max_bytes=max_bytes,
        overwrite=overwrite,
    ) as writer:
        for i, source in enumerate(sources):
            prefix = prefixes[i] if prefixes else ""
            for sample in read_shards(source):
                writer.write(f"{prefix}{sample.key}", sample.trajectory)
        return writer.finish(
            acceptance={stage: dict(outcomes) for stage, outcomes in acceptance.items()},
            cost=cost,
        )


def _check_file(folder: Path, entry: ShardEntry) -> list[str]:
    path = folder / entry.shard
    if not path.is_file():
        return [f"{entry.shard}: listed in the index, but missing"]
    size = path.stat().st_size
    if size != entry.bytes:
        return [f"{entry.shard}: {size} bytes, the index says {entry.bytes}"]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != entry.sha256:
        return [f"{entry.shard}: sha256 is {found}, the index says {entry.sha256}"]
    return []
