"""One data set with what training needs of it computed once: lengths and latents."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
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
from staged.shards.folder import INDEX, read_index
from staged.trajectory import ImageRef, Trajectory

_ENCODE_BATCH = 64
_FORMAT = b"lengths, noised, first_token"  # what a table holds; another one is another cache

Encode = Callable[[str], tuple[int, ...]]


class EncodedFolder:
    """The samples of one folder of shards, measured and encoded.

    Lengths and latents are kept in the cache under a fingerprint of the data, the tokenizer and
    the autoencoder, so that every mixture with this folder shares them.
    """

    def __init__(
        self,
        folder: Path,
        codec: ImageCodec,
        tokenizer: BagelTokenizer,
        encode: Encode,
        cache: Path,
        *,
        latents: bool = True,
    ) -> None:
        """Open the folder; the first time, read every sample once.

        Args:
            folder: Of shards.
            codec: Encodes images.
            tokenizer: Says how texts are framed.
            encode: Text to ids, as the tokenizer does.
            cache: Where lengths and latents are kept.
            latents: Encode images. Without, which takes no more than reading, latents are zeros and
                nothing is kept: to look at what training would do.

        Raises:
            ValueError: The folder holds no finished data set, a sample cannot be read, or the
                cache is damaged.
        """
        self.folder, self.codec, self.encode = folder, codec, encode
        self._special = tokenizer.special
        self.index = _open(folder)
        self.fingerprint = _fingerprint(folder, codec, tokenizer)
        self._latents: NDArray[np.float32] | None = None
        table = cache / f"{self.fingerprint[:16]}.npz"
        if not latents and not table.is_file():
            self._take(self._measure(None))
            return
        if not table.is_file():
            self._read_all(table)
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

    def name(self, place: int) -> str:
        """The folder and the sample's key in it."""
        return f"{self.folder}: {self.index.keys[place]}"

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

    def _take(self, table: Mapping[str, NDArray[np.int64]]) -> None:
        self.lengths, self.noised = table["lengths"], table["noised"]
        self._first_token = table["first_token"]

    def _read_all(self, table: Path) -> None:
        """Measure every sample and encode every image; files appear whole or not at all."""
        table.parent.mkdir(parents=True, exist_ok=True)
        latents = table.with_suffix(".latents")
        with locks.held(table.with_suffix(".lock")):
            if table.is_file():
                return  # another run was faster
            # Once, before its images cost minutes: a byte that changed may still make a picture.
            # Of an empty set the plan tells.
            if len(self) and (problems := damage(self.folder)):
                raise ValueError(
                    f"{self.folder} is damaged: {'; '.join(problems[:3])}; build it again, or copy "
                    "it anew (staged data validate tells all)"
                )
            sweep(table.parent, {table.name, latents.name}.__contains__, everyones=True)
            with whole(latents) as file:
                measured = self._measure(file)
            # The table last: where it is, the latents are.
            with whole(table) as file:
                np.savez(file, allow_pickle=False, **measured)

    def _measure(self, file: BinaryIO | None) -> dict[str, NDArray[np.int64]]:
        """Write every image's latents to a file, if there is one; returns the table's columns."""
        lengths, noised, first_token, tokens = [], [], [], 0
        progress = Progress(f"reading {self.folder}", len(self), unit="samples/s")
        pending: list[NDArray[np.uint8]] = []
        for sample in range(len(self)):
            trajectory = self.trajectory(sample)
            segments = interleave(trajectory, self.encode, self._special, self.grids_of).segments
            lengths.append(sum(segment.num_tokens for segment in segments))
            noised.append(sum(s.num_tokens for s in segments if s.kind is SegmentKind.NOISED))
            first_token.append(tokens)
            for ref in trajectory.images:
                tokens += _num_latents(self.grids_of(ref))
                if file is not None:
                    pending.append(ref.array())
            if file is not None and (len(pending) >= _ENCODE_BATCH or sample + 1 == len(self)):
                for latents in self.codec.to_latents_each(pending):
                    require_finite(latents, f"latents of an image of {self.name(sample)} are")
                    file.write(latents.float().cpu().numpy().tobytes())
                pending = []
            progress.advance()
        columns = {"lengths": lengths, "noised": noised, "first_token": first_token}
        return {name: np.array(column, dtype=np.int64) for name, column in columns.items()}


def _open(folder: Path) -> ShardIndex:
    if not folder.is_dir():
        raise ValueError(f"data folder {folder} does not exist; build it, or correct data.path")
    if not (folder / INDEX).is_file():
        raise ValueError(
            f"{folder} holds no finished data set (no {INDEX}); let its build finish, or correct "
            "data.path"
        )
    return ShardIndex(folder)


def _map(path: Path, columns: int) -> NDArray[np.float32]:
    """(n, columns) float32 on the disk; numpy maps no empty file."""
    if not path.stat().st_size:
        return np.empty((0, columns), dtype=np.float32)
    return np.memmap(path, dtype=np.float32, mode="r").reshape(-1, columns)


def _num_latents(grids: Grids) -> int:
    return grids.latent[0] * grids.latent[1]


def _fingerprint(folder: Path, codec: ImageCodec, tokenizer: BagelTokenizer) -> str:
    """Of everything that lengths and latents depend on."""
    digest = hashlib.sha256(_FORMAT)
    shards = [[entry.sha256 for entry in read_index(folder)]]
    digest.update(strict_json.dumps(shards).encode())
    digest.update(repr((codec.sizes, codec.config)).encode())
    digest.update(tokenizer.backend.to_str().encode())
    for name, tensor in sorted(codec.autoencoder.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
