"""Plain tar members, written bit for bit the same and read without trust.

Python's `tarfile` takes a damaged header, or an end at a member boundary, for the end of the
archive; here both are errors, so that a truncated shard is never silently a short one.
"""

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from staged.shards.limits import MAX_MEMBERS, ShardError

BLOCK: Final = 512
RECORD: Final = 20 * BLOCK
_MAX_EXTENSION_BYTES: Final = 64 * 1024
_PLAIN: Final = (tarfile.REGTYPE, tarfile.AREGTYPE)
_EXTENSION: Final = (tarfile.XHDTYPE, tarfile.XGLTYPE)
# A pax record that would change what a plain header says about a member's name or size.
_OVERRIDES: Final = (b" path=", b" size=", b" GNU.sparse", b" linkpath=")


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file in a tar: its header begins at byte `start`, its `size` bytes at byte `data`."""

    name: str
    start: int
    data: int
    size: int

    @property
    def stop(self) -> int:
        """Where the next header begins."""
        return self.data + padded(self.size)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Members in a row with one key (what comes before the first dot): a sample, unchecked.

    At most `MAX_MEMBERS` + 1 of the members are kept.
    """

    key: str
    members: tuple[Member, ...]
    start: int
    stop: int


def encode_member(name: str, data: bytes) -> bytes:
    """Return header, data and padding; owner, mode and time are always the same."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    header = info.tobuf(format=tarfile.USTAR_FORMAT, encoding="ascii", errors="strict")
    return header + data + bytes(padded(len(data)) - len(data))


def end_of_archive(position: int) -> bytes:
    """Return the zeros that end a tar of `position` bytes, filled up to a whole record."""
    return bytes(-(position + 2 * BLOCK) % RECORD + 2 * BLOCK)


def padded(size: int) -> int:
    """Round up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def groups(file: BinaryIO, shard: str) -> Iterator[Group]:
    """Group the members of a whole shard by key.

    Raises:
        ShardError: the tar is truncated or damaged; a group that may lack members is not yielded.
    """
    return _grouped(_members(file, shard, whole=True))


def group_in(data: bytes, shard: str, key: str) -> Group:
    """Parse the one group that a slice of a shard holds.

    Raises:
        ShardError: the slice is not exactly the sample `key`.
    """
    try:
        found = list(_grouped(_members(io.BytesIO(data), shard, whole=False)))
    except ShardError as error:
        raise ShardError(shard, key, "stale offsets", str(error)) from None
    if [group.key for group in found] != [key]:
        names = [group.key for group in found]
        raise ShardError(shard, key, "stale offsets", f"{names!r:.100} stands at its place")
    return found[0]


def _grouped(members: Iterator[Member]) -> Iterator[Group]:
    key: str | None = None
    kept: list[Member] = []
    start = stop = 0
    while True:
        try:
            member = next(members, None)
        except ShardError as error:
            if key is not None and error.key != key:  # another sample began: this one is whole
                yield Group(key=key, members=tuple(kept), start=start, stop=stop)
            raise
        found = None if member is None else member.name.partition(".")[0]
        if key is not None and found != key:
            yield Group(key=key, members=tuple(kept), start=start, stop=stop)
        if member is None:
            return
        if found != key:
            key, kept, start = found, [], member.start
        if len(kept) <= MAX_MEMBERS:
            kept.append(member)
        stop = member.stop


def _members(file: BinaryIO, shard: str, *, whole: bool) -> Iterator[Member]:
    """Walk over members; `whole` demands the end-of-archive zeros, otherwise data just ends."""
    length = file.seek(0, os.SEEK_END)
    position = start = 0
    key: str | None = None
    while whole or position < length:
        file.seek(position)
        header = file.read(BLOCK)
        if len(header) < BLOCK:
            raise ShardError(shard, key, "truncated", f"it ends at byte {length} in a header")
        if header == bytes(BLOCK):
            _check_end(file, shard, key, position)
            return
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise ShardError(
                shard, key, "damaged tar", f"header at byte {position}: {error}"
            ) from None
        name, data, size = info.name, position + BLOCK, info.size
        if size < 0:
            raise ShardError(shard, key, "damaged tar", f"header at byte {position}: size {size}")
        if data + padded(size) > length:
            raise ShardError(
                shard,
                name.partition(".")[0],
                "truncated",
                f"{name!r:.100} needs {size} bytes from byte {data} of {length}",
            )
        position = data + padded(size)
        if info.type in _EXTENSION:
            extension = file.read(min(size, _MAX_EXTENSION_BYTES))
            if size > _MAX_EXTENSION_BYTES or any(word in extension for word in _OVERRIDES):
                raise ShardError(
                    shard, key, "damaged tar", f"extended header at byte {data - BLOCK}"
                )
            continue
        if info.type not in _PLAIN:
            raise ShardError(shard, key, "bad name", f"{name!r:.100} is not a plain file")
        yield Member(name=name, start=start, data=data, size=size)
        key, start = name.partition(".")[0], position


def _check_end(file: BinaryIO, shard: str, key: str | None, position: int) -> None:
    file.seek(position)
    zeros = 0
    while chunk := file.read(2**20):
        if chunk.count(0) != len(chunk):
            raise ShardError(shard, key, "damaged tar", f"data after the end at byte {position}")
        zeros += len(chunk)
    if zeros < 2 * BLOCK:
        raise ShardError(shard, key, "truncated", f"it ends at byte {position + zeros}")
