"""The mixture of data sets as one sequence of samples; lengths and latents computed once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staged import images, strict_json
from staged.engine.engine import Engine
from staged.sequence import Grids, interleave
from staged.shards import ShardIndex
from staged.shards.folder import read_index
from staged.trajectory import ImageRef, Sketch, Trajectory
from train.progress import Progress
from train.settings import Subset

_ENCODE_BATCH = 64


class Examples:
    """Samples of all subsets, one after another.

    Images become latents and patches by the engine's own code: training sees what generation
    will see.
    """

    def __init__(self, subsets: Sequence[Subset], engine: Engine, cache: Path) -> None:
        """Open the subsets; the first time, read every sample once.

        Args:
            subsets: The mixture.
            engine: Encodes text and images.
            cache: Folder for lengths and latents; reused while data, tokenizer and autoencoder
                are the same.
        """
        self.engine = engine
        config = engine.model.config
        self.latent_dim, self.patch_dim = config.latent_token_dim, config.vision.patch_dim
        self._indexes = [ShardIndex(subset.path) for subset in subsets]
        self._starts = np.cumsum([0, *(len(index) for index in self._indexes)])
        self.repeats = np.concatenate(
            [np.full(len(i), s.repeats) for i, s in zip(self._indexes, subsets, strict=True)]
        )
        self.encode = lru_cache(maxsize=1 << 18)(engine.tokenizer.encode)
        self.fingerprint = _fingerprint(subsets, engine)
        table = cache / f"{self.fingerprint[:16]}.npz"
        if not table.is_file():
            self._read_all(table)
        with np.load(table) as stored:
            self.lengths: NDArray[np.int64] = stored["lengths"]
            self._first_token: NDArray[np.int64] = stored["first_token"]
        self._latents = np.memmap(
            table.with_suffix(".latents"), dtype=np.float32, mode="r"
        ).reshape(-1, self.latent_dim)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def trajectory(self, sample: int) -> Trajectory:
        """Read one sample."""
        subset = int(np.searchsorted(self._starts, sample, side="right")) - 1
        return self._indexes[subset][sample - int(self._starts[subset])].trajectory

    def grids_of(self, ref: ImageRef) -> Grids:
        """Token grids of an image."""
        if ref.png is None:
            raise ValueError(f"image {ref.name!r} is not loaded; read it from its sample first")
        _, width, height = images.probe(ref.png)
        return self.engine.grids(height, width)

    def latents(self, sample: int, trajectory: Trajectory, image: int) -> Tensor:
        """(n, Z) float32 latent tokens of one image of a sample."""
        counts = [_num_latents(self.grids_of(ref)) for ref in all_images(trajectory)[: image + 1]]
        start = int(self._first_token[sample]) + sum(counts[:-1])
        return torch.from_numpy(np.array(self._latents[start : start + counts[-1]]))

    def patches(self, trajectory: Trajectory, image: int) -> Tensor:
        """(m, P) float32 ViT patches of one image of a sample."""
        return self.engine.to_patches(all_images(trajectory)[image].array())

    def _read_all(self, table: Path) -> None:
        """Measure every sample and encode every image; files appear whole or not at all."""
        table.parent.mkdir(parents=True, exist_ok=True)
        lengths, first_token, tokens = [], [], 0
        progress = Progress("reading data", len(self))
        partial = table.with_suffix(f".{os.getpid()}.tmp")
        pending: list[NDArray[np.uint8]] = []
        with partial.open("wb") as file:
            for sample in range(len(self)):
                trajectory = self.trajectory(sample)
                segments = interleave(
                    trajectory, self.encode, self.engine.special, self.grids_of
                ).segments
                lengths.append(sum(segment.num_tokens for segment in segments))
                first_token.append(tokens)
                for ref in all_images(trajectory):
                    tokens += _num_latents(self.grids_of(ref))
                    pending.append(ref.array())
                if len(pending) >= _ENCODE_BATCH or sample + 1 == len(self):
                    for latents in self._encode(pending):
                        file.write(latents.float().cpu().numpy().tobytes())
                    pending = []
                progress.advance(note=f"{progress.rate():.0f} samples/s")
        os.replace(partial, table.with_suffix(".latents"))
        with partial.open("wb") as file:
            np.savez(
                file,
                lengths=np.array(lengths, dtype=np.int64),
                first_token=np.array(first_token, dtype=np.int64),
            )
        os.replace(partial, table)

    def _encode(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """Encode images, equal sizes together: padding would change latents (group norm)."""
        if pictures and len({picture.shape for picture in pictures}) == 1:
            return list(self.engine.to_latents_batch(pictures))
        return [self.engine.to_latents(picture) for picture in pictures]


def all_images(trajectory: Trajectory) -> list[ImageRef]:
    """Input images, then sketches."""
    sketches = [step.image for step in trajectory.steps if isinstance(step, Sketch)]
    return [*trajectory.inputs, *sketches]


def _num_latents(grids: Grids) -> int:
    return grids.latent[0] * grids.latent[1]


def _fingerprint(subsets: Sequence[Subset], engine: Engine) -> str:
    """Of everything that lengths and latents depend on."""
    digest = hashlib.sha256()
    shards = [[entry.sha256 for entry in read_index(subset.path)] for subset in subsets]
    digest.update(strict_json.dumps(shards).encode())
    digest.update(repr((engine.sizes, engine.model.config)).encode())
    digest.update(engine.tokenizer.backend.to_str().encode())
    for name, tensor in sorted(engine.autoencoder.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
