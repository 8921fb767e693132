"""The mixture of data sets as one sequence of samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from torch import Tensor

from staged.model.codec import ImageCodec
from staged.model.layout import Grids
from staged.model.tokenizer import BagelTokenizer
from staged.shards.streaming import Streaming
from staged.trajectory import ImageRef, Trajectory
from train.encoded import EncodedFolder
from train.settings import Subset

_AS_USUAL: Final = Streaming()


class Examples:
    """Samples of all subsets, one after another.

    Images become latents and patches by the codec that generation has too, so training sees what
    generation will see.

    Attributes:
        parts: One for each subset.
        folders: Of the subsets, by their fingerprints.
    """

    def __init__(
        self,
        subsets: Sequence[Subset],
        codec: ImageCodec,
        tokenizer: BagelTokenizer,
        cache: Path,
        *,
        noised_copies: int = 1,
        latents: bool = True,
        streaming: Streaming = _AS_USUAL,
    ) -> None:
        """Open the subsets; see `EncodedFolder`.

        Args:
            subsets: The mixture.
            codec: Encodes images.
            tokenizer: Encodes text.
            cache: Folder for lengths and latents.
            noised_copies: Of each supervised sketch; lengths count them.
            latents: Encode images; see `EncodedFolder`.
            streaming: Of data sets that are addresses.

        Raises:
            ValueError: As `EncodedFolder`.
        """
        self.codec, self.special, config = codec, tokenizer.special, codec.config
        self.latent_dim, self.patch_dim = config.latent_token_dim, config.vision.patch_dim
        self.encode = lru_cache(maxsize=1 << 18)(tokenizer.encode)
        self.parts = [
            EncodedFolder(
                s.path, codec, tokenizer, self.encode, cache, latents=latents, streaming=streaming
            )
            for s in subsets
        ]
        self._starts = np.cumsum([0, *(len(part) for part in self.parts)])
        self.lengths = np.concatenate(
            # Tables count one copy, so that runs with other numbers of them share a table.
            [part.lengths + (noised_copies - 1) * part.noised for part in self.parts]
        )
        self.repeats = np.concatenate(
            [np.full(len(part), s.repeats) for part, s in zip(self.parts, subsets, strict=True)]
        )
        self._weights = [(s.ce_weight, s.mse_weight) for s in subsets]
        self.folders = {part.fingerprint: part.folder for part in self.parts}
        self.fingerprint = " ".join(part.fingerprint for part in self.parts)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def trajectory(self, sample: int) -> Trajectory:
        """Read one sample."""
        part, place = self._find(sample)
        return part.trajectory(place)

    def name(self, sample: int) -> str:
        """The data set's folder and the sample's key in it."""
        part, place = self._find(sample)
        return part.name(place)

    def loss_weights(self, sample: int) -> tuple[float, float]:
        """What its supervised words and latents count."""
        return self._weights[self._subset(sample)]

    def grids_of(self, ref: ImageRef) -> Grids:
        """Token grids of an image."""
        return self.parts[0].grids_of(ref)

    def latents(self, sample: int, trajectory: Trajectory, image: int) -> Tensor:
        """(n, Z) float32 latent tokens of one image of a sample."""
        part, place = self._find(sample)
        return part.latents(place, trajectory, image)

    def patches(self, sample: int, trajectory: Trajectory, image: int) -> Tensor:
        """(m, P) float32 ViT patches of one image of a sample."""
        part, place = self._find(sample)
        return self.codec.to_patches(part.pixels(place, trajectory.images[image]))

    def require_images(self, sample: int) -> None:
        """Require every image of a sample to be one, also those of which latents are kept.

        Raises:
            ValueError: One cannot be decoded, or the sample not be read; names it.
        """
        part, place = self._find(sample)
        for ref in part.trajectory(place).images:
            part.pixels(place, ref)

    @contextmanager
    def at_hand(self, samples: Sequence[int]) -> Iterator[None]:
        """Fetch several samples at a time, where they are elsewhere, and keep them for the block.

        Raises:
            ValueError, OSError: One cannot be had.
        """
        with ExitStack() as kept:
            for number, part in enumerate(self.parts):
                start, stop = int(self._starts[number]), int(self._starts[number + 1])
                places = [sample - start for sample in samples if start <= sample < stop]
                kept.enter_context(part.at_hand(places))
            yield

    def _find(self, sample: int) -> tuple[EncodedFolder, int]:
        subset = self._subset(sample)
        return self.parts[subset], sample - int(self._starts[subset])

    def _subset(self, sample: int) -> int:
        return int(np.searchsorted(self._starts, sample, side="right")) - 1
