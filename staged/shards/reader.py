"""Shards into trajectories, checked before they are believed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from staged import images
from staged.shards import tar
from staged.shards.folder import shard_paths
from staged.shards.limits import KEY, MAX_MEMBERS, Limits, OnError, Reason, ShardError, Skipped
from staged.trajectory import ImageRef, Trajectory

DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A trajectory with its images, and where it came from.

    Attributes:
        key: Unique in its data set.
        shard: File name.
        trajectory: Its images carry both bytes and names.
    """

    key: str
    shard: str
    trajectory: Trajectory


def read_shards(
    source: Path | str | Sequence[Path | str],
    *,
    on_error: OnError = "raise",
    skipped: Skipped | None = None,
    decode: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[Sample]:
    """Read samples in order.

    Args:
        source: A data set's folder, a shard, or several shards.
        on_error: Raise at the first mistake, or skip the sample (the rest of the shard, where the
            tar itself is damaged) and go on.
        skipped: Counts what was skipped, by reason.
        decode: Also decode every image in full; otherwise only its header is checked here, and
            damage behind it shows in `ImageRef.array`.
        limits: Bounds on sizes.

    Raises:
        ShardError: with shard, key and reason, unless skipping.
        ValueError: the folder holds no data set, or its index is malformed.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is {on_error!r}; expected 'raise' or 'skip'")
    skipped = skipped if skipped is not None else Skipped()
    seen: set[str] = set()
    for path in shard_paths(source):
        found = _read_shard(path, seen, decode, limits)
        for sample in found:
            if isinstance(sample, Sample):
                yield sample
            elif on_error == "raise":
                raise sample
            else:
                skipped.add(sample)


def load(
    file: BinaryIO, group: tar.Group, shard: str, *, decode: bool = False, limits: Limits
) -> Sample:
    """Check and load one sample of an open tar.

    Raises:
        ShardError: with shard, key and reason.
    """
    key = group.key

    def wrong(reason: Reason, detail: str) -> ShardError:
        return ShardError(shard, key, reason, detail)

    if not KEY.fullmatch(key):
        raise wrong("bad name", "expected 1-80 letters, digits, _ or -")
    if len(group.members) > MAX_MEMBERS:
        raise wrong("too large", f"more than {MAX_MEMBERS} members")
    if group.stop - group.start > limits.sample_bytes:
        raise wrong("too large", f"{group.stop - group.start} bytes exceed {limits.sample_bytes}")
    members = {member.name.partition(".")[2]: member for member in group.members}
    if len(members) != len(group.members):
        raise wrong("unexpected member", "a member appears twice")
    if "json" not in members:
        raise wrong("missing member", f"{key}.json")

    def read(name: str, limit: int) -> bytes:
        member = members[name]
        if member.size > limit:
            raise wrong("too large", f"{member.name}: {member.size} bytes exceed {limit}")
        file.seek(member.data)
        return file.read(member.size)

    text = read("json", limits.json_bytes)
    try:
        trajectory = Trajectory.from_json(text)
    except ValueError as error:
        raise wrong("bad trajectory", str(error)) from None
    named = [ref.name for ref in trajectory.images if ref.name is not None]
    for name in named:
        if name not in members:
            raise wrong("missing member", f"{key}.{name}")
    for name in members:
        if name != "json" and name not in named:
            raise wrong("unexpected member", f"{key}.{name} is in no step")
    loaded: dict[str, ImageRef] = {}
    for name in dict.fromkeys(named):
        data = read(name, limits.image_bytes)
        try:
            extension, _, _ = images.probe(data, max_pixels=limits.pixels)
            if decode:
                images.decode(data, max_pixels=limits.pixels)
        except ValueError as error:
            raise wrong("bad image", f"{key}.{name}: {error}") from None
        if not name.endswith(f".{extension}"):
            raise wrong("bad image", f"{key}.{name} holds {extension} data")
        loaded[name] = ImageRef(png=data, name=name)
    full = trajectory.with_images([loaded[name] for name in named])
    return Sample(key=key, shard=shard, trajectory=full)


def _read_shard(
    path: Path, seen: set[str], decode: bool, limits: Limits
) -> Iterator[Sample | ShardError]:
    """Yield samples and, in the place of those that cannot be read, why."""
    try:
        file = path.open("rb")
    except OSError as error:
        yield ShardError(path.name, None, "missing shard", str(error.strerror))
        return
    with file:
        found = tar.groups(file, path.name)
        while True:
            try:
                group = next(found, None)
            except ShardError as error:
                yield error
                return
            if group is None:
                return
            try:
                if group.key in seen:
                    raise ShardError(path.name, group.key, "duplicate key", "it was read before")
                sample = load(file, group, path.name, decode=decode, limits=limits)
            except ShardError as error:
                yield error
                continue
            seen.add(group.key)
            yield sample
