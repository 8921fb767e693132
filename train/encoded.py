"""One data set with what training needs of it computed once: lengths and latents."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staged import images, strict_json
from staged.jobs import locks
from staged.jobs.files import sweep, whole
from staged.jobs.progress import Progress
from staged.model.codec import ImageCodec
from staged.model.finite import require_finite
from staged.model.layout import Grids, SegmentKind
from staged.model.tokenizer import BagelTokenizer
from staged.sequence import interleave
from staged.shards import ShardError, ShardIndex
from staged.shards.checks import damage
from staged.shards.folder import ShardEntry, read_index
from staged.shards.streaming import RemoteShards, Streaming, is_remote, shown
from staged.trajectory import ImageRef, Trajectory
from train.data_folder import finished
from train.partial_latents import PartialLatents, note_of

_ENCODE_BATCH = 64
_SUMS = ".sums"
_FORMAT = b"lengths, noised, first_token"  # what a table holds; another one is another cache

Encode = Callable[[str], tuple[int, ...]]


class EncodedFolder:
    """The samples of one folder of shards, here or at an address, measured and encoded.

    Lengths and latents are kept in the cache under a fingerprint of the data, the tokenizer and
    the autoencoder, so that every mixture with this folder shares them.

    Attributes:
        folder: Where it lies, for messages: of an address without its query.
        index: The samples.
        fingerprint: Of the data, the tokenizer and the autoencoder.
        lengths: (samples,) int64 tokens of each.
        noised: (samples,) int64 tokens of each that are noised.
    """

    def __init__(
        self,
        folder: str,
        codec: ImageCodec,
        tokenizer: BagelTokenizer,
        encode: Encode,
        cache: Path,
        *,
        latents: bool = True,
        streaming: Streaming,
    ) -> None:
        """Open the folder; the first time, read every sample once.

        Args:
            folder: Of shards, or its address.
            codec: Encodes images.
            tokenizer: Says how texts are framed.
            encode: Text to ids, as the tokenizer does.
            cache: Where lengths and latents are kept.
            latents: Encode images. Without, which takes no more than reading, latents are zeros and
                nothing is kept: to look at what training would do.
            streaming: Of an address.

        Raises:
            ValueError: The folder holds no finished data set, a sample cannot be read, or the
                cache is damaged.
        """
        self.folder, self.codec, self.encode = shown(folder), codec, encode
        self._special = tokenizer.special
        self.index: ShardIndex | RemoteShards
        if is_remote(folder):
            kept = streaming.folder or cache / "streamed"
            try:
                self.index = RemoteShards(folder, kept, streaming)
            except ShardError as error:
                raise ValueError(f"{self.folder}: {error}") from error
            entries = self.index.entries
        else:
            local = finished(folder)
            self.index, entries = ShardIndex(local), read_index(local)
        self.fingerprint = _fingerprint(entries, codec, tokenizer)
        self._latents: NDArray[np.float32] | None = None
        table = cache / f"{self.fingerprint[:16]}.npz"
        if not latents and not table.is_file():
            self._take(self._measure(None))
            return
        if not table.is_file():
            self._read_all(table, None if is_remote(folder) else Path(folder).expanduser())
        if isinstance(self.index, RemoteShards):
            sums = self._sums(self.index, table)
            try:
                self.index.expect(sums)
            except ValueError as error:
                raise ValueError(
                    f"{table.with_suffix(_SUMS)} is damaged ({error}); remove it, and it is "
                    "computed again"
                ) from error
        try:
            with np.load(table) as stored:
                self._take(stored)
            columns = codec.config.latent_token_dim
            self._latents = _map(table.with_suffix(".latents"), columns)
            if len(self.lengths) != len(self) or self._first_token.max(initial=0) > len(
                self._latents
            ):
                raise ValueError("its files do not fit one another")
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{table} is damaged ({error}); remove it, and it is computed again"
            ) from error

    def __len__(self) -> int:
        return len(self.index)

    def trajectory(self, place: int) -> Trajectory:
        """Read one sample.

        Raises:
            ValueError: It cannot be read; names the folder, for a run may have several.
        """
        try:
            return self.index[place].trajectory
        except ShardError as error:
            raise ValueError(f"{self.folder}: {error}") from error

    @contextmanager
    def at_hand(self, places: Sequence[int]) -> Iterator[None]:
        """Fetch samples of an address, several at a time, and keep them for the block.

        Raises:
            ValueError, OSError: One cannot be had.
        """
        if not isinstance(self.index, RemoteShards) or not places:
            yield
            return
        with ExitStack() as kept:
            try:
                kept.enter_context(self.index.at_hand(places))
            except ShardError as error:
                raise ValueError(f"{self.folder}: {error}") from error
            yield

    def name(self, place: int) -> str:
        """The folder and the sample's key in it."""
        return f"{self.folder}: {self.index.keys[place]}"

    def pixels(self, place: int, ref: ImageRef) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 of one image of a sample.

        Raises:
            ValueError: It cannot be decoded; names the sample.
        """
        try:
            return ref.array()
        except ValueError as error:
            raise ValueError(f"{self.name(place)}: {error}") from error

    def grids_of(self, ref: ImageRef) -> Grids:
        """Token grids of an image."""
        _, width, height = images.probe(ref.loaded)
        return self.codec.grids(height, width)

    def latents(self, place: int, trajectory: Trajectory, image: int) -> Tensor:
        """(n, Z) float32 latent tokens of one image of a sample."""
        counts = [_num_latents(self.grids_of(ref)) for ref in trajectory.images[: image + 1]]
        if self._latents is None:
            return torch.zeros(counts[-1], self.codec.config.latent_token_dim)
        start = int(self._first_token[place]) + sum(counts[:-1])
        # Copied: the mapped file may not be written to, and would be read at some later time.
        return torch.from_numpy(np.array(self._latents[start : start + counts[-1]]))

    def _in_order(self, sums: BinaryIO | None) -> Iterator[Trajectory]:
        """Every sample; those of an address in one stream, with the sum of each for later."""
        if isinstance(self.index, ShardIndex):
            yield from (self.trajectory(place) for place in range(len(self)))
            return
        try:
            for sample, digest in self.index.in_order():
                if sums is not None:
                    sums.write(digest)
                yield sample.trajectory
        except ShardError as error:
            raise ValueError(f"{self.folder}: {error}") from error

    def _sums(self, index: RemoteShards, table: Path) -> bytes:
        """Sums of the samples; where a folder was measured before, one more pass makes them."""
        path = table.with_suffix(_SUMS)
        if not path.is_file():
            with locks.held(table.with_suffix(".lock")):
                if not path.is_file():
                    with whole(path) as file:
                        for _ in self._in_order(file):
                            pass
        return path.read_bytes()

    def _take(self, table: Mapping[str, NDArray[np.int64]]) -> None:
        self.lengths, self.noised = table["lengths"], table["noised"]
        self._first_token = table["first_token"]

    def _read_all(self, table: Path, local: Path | None) -> None:
        """Measure every sample and encode every image; files appear whole or not at all.

        Args:
            table: What is made.
            local: Folder of shards; None of an address.
        """
        table.parent.mkdir(parents=True, exist_ok=True)
        latents = table.with_suffix(".latents")
        with locks.held(table.with_suffix(".lock")):
            if table.is_file():
                return  # another run was faster
            # Once, before its images cost minutes: a byte that changed may still make a picture.
            # Of an empty set the plan tells.
            if local is not None and len(self):
                require_undamaged(str(local))
            sums = table.with_suffix(_SUMS)
            names = {table.name, note_of(latents).name, sums.name}
            sweep(table.parent, names.__contains__, everyones=True)
            with PartialLatents(latents) as file, nullcontext() if local else whole(sums) as summed:
                measured = self._measure(file, summed)
                file.finish()
            # The table last: where it is, the latents are.
            with whole(table) as file:
                np.savez(file, allow_pickle=False, **measured)

    def _measure(
        self, file: PartialLatents | None, sums: BinaryIO | None = None
    ) -> dict[str, NDArray[np.int64]]:
        """Write every image's latents and sums to files, if there are any; returns the columns."""
        lengths, noised, first_token, tokens = [], [], [], 0
        done = 0 if file is None else file.samples
        progress = Progress(f"reading {self.folder}", len(self), unit="samples/s", done=done)
        pending: list[NDArray[np.uint8]] = []
        for sample, trajectory in enumerate(self._in_order(sums)):
            segments = interleave(trajectory, self.encode, self._special, self.grids_of).segments
            lengths.append(sum(segment.num_tokens for segment in segments))
            noised.append(sum(s.num_tokens for s in segments if s.kind is SegmentKind.NOISED))
            first_token.append(tokens)
            for ref in trajectory.images:
                tokens += _num_latents(self.grids_of(ref))
                if file is not None and sample >= done:
                    pending.append(self.pixels(sample, ref))
            if sample < done:  # an earlier process has encoded it
                continue
            if file is not None and (len(pending) >= _ENCODE_BATCH or sample + 1 == len(self)):
                for latents in self.codec.to_latents_each(pending):
                    require_finite(latents, f"latents of an image of {self.name(sample)} are")
                    file.write(latents.float().cpu().numpy().tobytes())
                file.mark(sample + 1)
                pending = []
            progress.advance()
        columns = {"lengths": lengths, "noised": noised, "first_token": first_token}
        return {name: np.array(column, dtype=np.int64) for name, column in columns.items()}


def require_undamaged(path: str) -> None:
    """Compare a data set with its index; one at an address is compared as it is read.

    Raises:
        ValueError: It has other bytes, or lacks some.
    """
    if not is_remote(path) and (problems := damage(Path(path).expanduser())):
        raise ValueError(
            f"{path} is damaged: {'; '.join(problems[:3])}; build it again, or copy it anew "
            "(staged data validate tells all)"
        )


def _map(path: Path, columns: int) -> NDArray[np.float32]:
    """(n, columns) float32 on the disk; numpy maps no empty file."""
    if not path.stat().st_size:
        return np.empty((0, columns), dtype=np.float32)
    return np.memmap(path, dtype=np.float32, mode="r").reshape(-1, columns)


def _num_latents(grids: Grids) -> int:
    return grids.latent[0] * grids.latent[1]


def _fingerprint(
    entries: Sequence[ShardEntry], codec: ImageCodec, tokenizer: BagelTokenizer
) -> str:
    """Of everything that lengths and latents depend on."""
    digest = hashlib.sha256(_FORMAT)
    shards = [[entry.sha256 for entry in entries]]
    digest.update(strict_json.dumps(shards).encode())
    digest.update(repr((codec.sizes, codec.config)).encode())
    digest.update(tokenizer.backend.to_str().encode())
    for name, tensor in sorted(codec.autoencoder.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
