"""The looped generator: one persistent cache a trajectory; text, looking and drawing append to it.

Batched over contexts throughout. What a context yields never depends on its neighbours: each has
its own mask, seeds and guidance norm.

Letters: B contexts, n latent tokens, Z numbers a latent token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staged.engine.context import CacheBatch, ChunkAttention, Context
from staged.engine.sampling import Drawing, TextBlock, TextSampling, sample
from staged.model import images
from staged.model.autoencoder import Autoencoder, latents_from_tokens, tokens_from_latents
from staged.model.bagel import Bagel, Hidden, Inputs
from staged.model.config import BagelConfig
from staged.model.finite import NotFiniteError, all_finite
from staged.model.flow import guide, integrate, time_grid
from staged.model.flows import Flows, FlowSettings
from staged.model.layout import Layout, Segment, SegmentKind, lay_out
from staged.model.patches import patchify
from staged.model.tokenizer import BagelTokenizer
from staged.sequence import Grids, clean_copies, noised_copy, text_block

_PIXELS = 8 * 1024 * 1024
"""Encoded in one call: the largest activation of FLUX's encoder takes 256 bytes a pixel."""
_CPU_PIXELS = 8 * 48 * 48
"""The same on a CPU: more do not stay in its cache, and take twice as long each."""

_NOT_FINITE = -1
"""Stands for a token where the logits are no numbers."""


@dataclass(frozen=True, kw_only=True)
class ImageSizes:
    """Bounds of the two copies of an image, in pixels: longest side at most, shortest at least."""

    latent_max: int = 1024
    latent_min: int = 512
    vision_max: int = 980
    vision_min: int = 224

    @classmethod
    def of(cls, config: BagelConfig) -> Self:
        """Upstream's bounds, cut down to what the model's position tables can hold."""
        latent = min(cls.latent_max, config.max_latent_size * config.pixels_per_latent_token)
        vision = min(cls.vision_max, config.vision.positions_per_side * config.vision.patch_size)
        return cls(
            latent_max=latent,
            latent_min=min(cls.latent_min, latent),
            vision_max=vision,
            vision_min=min(cls.vision_min, vision),
        )


class Engine:
    """A model that reads and writes contexts."""

    def __init__(
        self,
        model: Bagel,
        autoencoder: Autoencoder,
        tokenizer: BagelTokenizer,
        *,
        sizes: ImageSizes | None = None,
        flows: Flows | None = None,
    ) -> None:
        """Wrap a loaded model; it stays on its device, in its dtype.

        Args:
            model: In evaluation mode.
            autoencoder: On the same device.
            tokenizer: Of the same checkpoint.
            sizes: Bounds on image copies; `ImageSizes.of` the model by default.
            flows: How the checkpoint's pictures are drawn, for whoever asks; by default as the
                published model draws.
        """
        self.model, self.autoencoder, self.tokenizer = model, autoencoder, tokenizer
        self.special = tokenizer.special
        self.sizes = sizes or ImageSizes.of(model.config)
        self.flows = flows or Flows()
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self._config = model.config

    # --- reading -----------------------------------------------------------------------------

    @torch.inference_mode()
    def append(
        self,
        contexts: Sequence[Context],
        segments: Sequence[Sequence[Segment]],
        inputs: Inputs | None = None,
    ) -> list[Tensor]:
        """Append segments to contexts, in one forward pass.

        Args:
            contexts: Changed in place.
            segments: What each context gets; at least one token each.
            inputs: Fills the image tokens, in the layout's order.

        Returns:
            For each context the (V,) float32 logits at its last token: after a closing marker,
            what comes next.
        """
        layout = self._lay_out(contexts, segments)
        batch = self._batch(contexts, max(layout.sample_lens))
        hidden = self._forward(batch, layout, inputs or self._no_images())
        batch.commit(layout)
        batch.store()
        for context, given in zip(contexts, segments, strict=True):
            context.has_images |= any(s.kind is not SegmentKind.TEXT for s in given)
        return list(self._last_logits(layout, hidden))

    def append_text(self, contexts: Sequence[Context], texts: Sequence[str]) -> list[Tensor]:
        """Append a text block to each context; see `append`."""
        blocks = [[text_block(self.tokenizer.encode(text))] for text in texts]
        return self.append(contexts, blocks)

    def append_images(
        self,
        contexts: Sequence[Context],
        pictures: Sequence[NDArray[np.uint8]],
        *,
        vision_only: bool = False,
    ) -> list[Tensor]:
        """Append an image to each context, as a VAE copy and a ViT copy; see `append`.

        What was drawn is encoded again from its pixels: training saw encoded pixels too.

        Args:
            contexts: Changed in place.
            pictures: (h, w, 3) uint8 RGB each.
            vision_only: Leave the VAE copy out, as the published model does to understand.
        """
        if vision_only:
            clean = torch.zeros(0, self._config.latent_token_dim)
        else:
            clean = torch.cat(self.to_latents_each(pictures))
        patches = torch.cat([self.to_patches(picture) for picture in pictures])
        inputs = Inputs(
            clean.to(self.device, self.dtype),
            torch.zeros(len(clean), device=self.device),
            patches.to(self.device, self.dtype),
        )
        grids = [self.grids(*picture.shape[:2]) for picture in pictures]
        first = 1 if vision_only else 0
        return self.append(contexts, [clean_copies(grid)[first:] for grid in grids], inputs)

    def grids(self, height: int, width: int) -> Grids:
        """Token grids of the two copies of an image of that many pixels."""
        latent, vision = self._copy_sizes(height, width)
        stride, patch = self._config.pixels_per_latent_token, self._config.vision.patch_size
        return Grids(
            latent=(latent[1] // stride, latent[0] // stride),
            vision=(vision[1] // patch, vision[0] // patch),
        )

    def to_latents(self, pixels: NDArray[np.uint8]) -> Tensor:
        """(h, w, 3) uint8 to the (n, Z) latent tokens of its clean copy."""
        return self.to_latents_each([pixels])[0]

    def to_latents_each(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """Images of any sizes to the (n, Z) latent tokens of each, equal sizes together.

        Padding different ones to one size would change latents: the autoencoder's group norms see
        a whole image.
        """
        places: dict[tuple[int, int], list[int]] = {}
        for place, picture in enumerate(pictures):
            latent, _ = self._copy_sizes(*picture.shape[:2])
            places.setdefault(latent, []).append(place)
        found: dict[int, Tensor] = {}
        for latent, alike in places.items():
            resized = [images.resize(pictures[place], *latent) for place in alike]
            encoded = self.encode(torch.stack([images.from_pixels(p) for p in resized]))
            found |= dict(zip(alike, encoded, strict=True))
        return [found[place] for place in range(len(pictures))]

    def to_patches(self, pixels: NDArray[np.uint8]) -> Tensor:
        """(h, w, 3) uint8 to the (m, P) float32 patches of its ViT copy.

        The image is first brought to its latent size, as upstream does, then to the ViT's.
        """
        latent, vision = self._copy_sizes(*pixels.shape[:2])
        seen = images.resize(images.resize(pixels, *latent), *vision)
        return patchify(images.from_pixels(seen), self._config.vision.patch_size)

    def _copy_sizes(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(width, height) of the latent copy and of the ViT copy."""
        stride, patch = self._config.pixels_per_latent_token, self._config.vision.patch_size
        sizes = self.sizes
        latent = images.fit_size(width, height, sizes.latent_max, sizes.latent_min, stride)
        return latent, images.fit_size(*latent, sizes.vision_max, sizes.vision_min, patch)

    @torch.inference_mode()
    def encode(self, pictures: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] to (b, n, Z) latent tokens, without sampling noise."""
        parameter = next(self.autoencoder.parameters())
        at_once = _CPU_PIXELS if parameter.device.type == "cpu" else _PIXELS
        most = max(at_once // math.prod(pictures.shape[-2:]), 1)
        latents = [
            self.autoencoder.encode(some.to(parameter.device, parameter.dtype))
            for some in pictures.split(most)
        ]
        return tokens_from_latents(torch.cat(latents), self._config.latent_patch_size)

    # --- writing -----------------------------------------------------------------------------

    @torch.inference_mode()
    def write(
        self,
        contexts: Sequence[Context],
        sampling: Sequence[TextSampling],
        on_token: Callable[[int, int], None] | None = None,
    ) -> list[tuple[TextBlock, Tensor]]:
        """Let each context write one text block, which then stands in it.

        Args:
            contexts: Changed in place.
            sampling: One for each context.
            on_token: Called with (index of the context, token id) as tokens come.

        Returns:
            For each context the block and the (V,) float32 logits at its closing token. A block
            that was cut off is closed all the same; one whose logits were not finite says so, and
            its context is to be thrown away.
        """
        special = self.special
        generators = [torch.Generator().manual_seed(s.seed) for s in sampling]
        batch = self._batch(contexts, max(s.max_tokens for s in sampling) + 3)
        rows = list(range(len(contexts)))
        written: list[list[int]] = [[] for _ in rows]
        finished, finite = [False] * len(rows), [True] * len(rows)
        closing: list[Tensor | None] = [None] * len(rows)
        feed = [special.text_start] * len(rows)
        positions = [context.position for context in contexts]
        while any(logits is None for logits in closing):
            # Rows that are done are fed their closing token again, at a slot that is never kept.
            layout = self._one_token(feed, positions)
            hidden = self._forward(batch, layout, self._no_images())
            logits = self._last_logits(layout, hidden)
            # One wait for the device a token, however many rows there are.
            likeliest = torch.where(
                torch.isfinite(logits).all(dim=-1), logits.argmax(dim=-1), _NOT_FINITE
            ).tolist()
            for row in rows:
                if closing[row] is not None:
                    continue
                batch.lengths[row] += 1
                positions[row] += 1
                if feed[row] == special.text_end:
                    finite[row] = likeliest[row] != _NOT_FINITE
                    closing[row] = logits[row]
                    continue
                token = likeliest[row]
                if token == _NOT_FINITE:
                    finite[row], closing[row] = False, logits[row]
                    continue
                if sampling[row].temperature > 0:
                    token = sample(logits[row], sampling[row], generators[row])
                if token == special.text_end:
                    finished[row] = True
                elif len(written[row]) == sampling[row].max_tokens:
                    token = special.text_end  # cut off
                else:
                    written[row].append(token)
                    if on_token is not None:
                        on_token(row, token)
                feed[row] = token
        batch.store()
        results = []
        for row, context in enumerate(contexts):
            context.position = positions[row]
            ids, last = tuple(written[row]), closing[row]
            assert last is not None
            block = TextBlock(
                ids=ids,
                text=self.tokenizer.decode(ids),
                finished=finished[row],
                finite=finite[row],
            )
            results.append((block, last))
        return results

    # --- drawing -----------------------------------------------------------------------------

    @torch.inference_mode()
    def draw(
        self,
        contexts: Sequence[Context],
        without_text: Sequence[Context],
        without_images: Sequence[Context],
        *,
        sizes: Sequence[tuple[int, int]],
        seeds: Sequence[int],
        settings: FlowSettings,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> list[Drawing]:
        """Draw one image in each context; the contexts stay as they are.

        Args:
            contexts: With everything the image shall follow.
            without_text: The same without the last text.
            without_images: The same with texts only; not read where the context has no images.
            sizes: (height, width) of each image in pixels.
            seeds: Of each image's noise.
            settings: Steps, grid, guidance.
            on_step: Called with (steps done, (sum of n, Z) estimate of the finished latents),
                the estimate being where the velocity of that step leads in a straight line.

        Returns:
            The drawings, in order. One whose numbers were not finite holds that instead of
            pixels; its neighbours are as they would be without it.

        Raises:
            ValueError: A size is no multiple of the pixels per latent token, or too large.
        """
        stride = self._config.pixels_per_latent_token
        for height, width in sizes:
            self._config.check_picture(height, width)
        grids = [(height // stride, width // stride) for height, width in sizes]
        guidance = settings.guidance
        image_rows = [
            row
            for row, context in enumerate(contexts)
            if context.has_images and guidance.image_scale > 1
        ]
        count = len(contexts)
        branches = [*contexts]
        if guidance.text_scale > 1:
            branches += [*without_text, *(without_images[row] for row in image_rows)]
        branch_grids = [*grids, *grids, *(grids[row] for row in image_rows)][: len(branches)]
        widest = max(rows * columns for rows, columns in grids) + 2
        batch = self._batch(branches, widest)
        plans = {
            size: self._flow_plan(batch, branches[:size], branch_grids[:size])
            for size in {count, len(branches)}
        }
        lens = [rows * columns for rows, columns in grids]
        steps = 0

        def velocity_at(x_t: Tensor, t: float) -> Tensor:
            velocity = guided_velocity_at(x_t, t)
            if on_step is not None:
                nonlocal steps
                steps += 1
                on_step(steps, x_t - t * velocity)
            return velocity

        def guided_velocity_at(x_t: Tensor, t: float) -> Tensor:
            active = len(branches) if guidance.at(t) else count
            parts = list(torch.split(x_t, lens))
            if active > count:
                parts += [*parts, *(parts[row] for row in image_rows)]
            layout, attention = plans[active]
            tokens = torch.cat(parts).to(self.dtype)
            times = torch.full((len(tokens),), t, device=self.device)
            inputs = Inputs(tokens, times, self._no_images().patches)
            hidden = self.model(layout, inputs, attention)
            velocities = torch.split(
                self.model.velocity(hidden.gen).float(), [len(p) for p in parts]
            )
            if active == count:
                return torch.cat(velocities)
            guided = []
            for row in range(count):
                blind = None
                if row in image_rows:
                    blind = velocities[2 * count + image_rows.index(row)][None]
                guided.append(
                    guide(velocities[row][None], velocities[count + row][None], blind, guidance)[0]
                )
            return torch.cat(guided)

        noise = torch.cat(
            [self.noise(seed, length) for seed, length in zip(seeds, lens, strict=True)]
        ).to(self.device)
        grid = time_grid(settings.num_flow_steps, settings.timestep_shift)
        latents = integrate(velocity_at, noise, grid)
        parts = torch.split(latents, lens)
        # What a velocity was at any step shows in the latents, so one look at the end will do,
        # and the device is waited for once.
        finite = torch.stack([all_finite(tokens) for tokens in parts]).tolist()
        return [
            self._drawing(tokens, grid) if good else _not_drawn(tokens)
            for tokens, grid, good in zip(parts, grids, finite, strict=True)
        ]

    def _drawing(self, tokens: Tensor, grid: tuple[int, int]) -> Drawing:
        try:
            return Drawing(latents=tokens, decoded=self.decode(tokens, *grid))
        except NotFiniteError as error:
            return Drawing(latents=tokens, decoded=error)

    def noise(self, seed: int, num_tokens: int) -> Tensor:
        """(num_tokens, Z) float32 on the CPU: the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(num_tokens, self._config.latent_token_dim, generator=generator)

    @torch.inference_mode()
    def decode(self, tokens: Tensor, rows: int, columns: int) -> NDArray[np.uint8]:
        """(n, Z) latent tokens to (h, w, 3) uint8 pixels.

        Raises:
            NotFiniteError: The pixels hold NaN or an infinity.
        """
        parameter = next(self.autoencoder.parameters())
        latents = latents_from_tokens(tokens, rows, columns, self._config.latent_patch_size)
        picture = self.autoencoder.decode(latents[None].to(parameter.device, parameter.dtype))
        return images.to_pixels(picture[0].float())

    # --- shared ------------------------------------------------------------------------------

    def _flow_plan(
        self, batch: CacheBatch, contexts: Sequence[Context], grids: Sequence[tuple[int, int]]
    ) -> tuple[Layout, ChunkAttention]:
        copies = [[noised_copy(Grids(latent=grid, vision=(0, 0)))] for grid in grids]
        layout = self._lay_out(contexts, copies)
        return layout, ChunkAttention(batch, layout)

    def _lay_out(
        self, contexts: Sequence[Context], segments: Sequence[Sequence[Segment]]
    ) -> Layout:
        positions = [context.position for context in contexts]
        return lay_out(segments, self.special, first_positions=positions).to(self.device)

    def _one_token(self, tokens: Sequence[int], positions: Sequence[int]) -> Layout:
        """A layout of one bare token a context: the inside of a text block being written."""
        count = len(tokens)
        index = torch.arange(count)
        none = index[:0]
        return Layout(
            sample_lens=(1,) * count,
            next_positions=tuple(position + 1 for position in positions),
            position_ids=torch.tensor(positions),
            segment_ids=torch.zeros_like(index),
            modes=torch.full_like(index, SegmentKind.TEXT),
            token_ids=torch.tensor(tokens),
            text_index=index,
            vision_index=none,
            latent_index=none,
            vision_grids=(),
            latent_grids=(),
            noised=none.bool(),
            velocity_rows=none,
            ce_index=none,
            labels=none,
            ce_weights=none.float(),
        ).to(self.device)

    def _batch(self, contexts: Sequence[Context], extra: int) -> CacheBatch:
        return CacheBatch(
            contexts, extra, self._config.transformer, device=self.device, dtype=self.dtype
        )

    def _forward(self, batch: CacheBatch, layout: Layout, inputs: Inputs) -> Hidden:
        hidden: Hidden = self.model(layout, inputs, ChunkAttention(batch, layout))
        return hidden

    def _no_images(self) -> Inputs:
        config = self._config
        empty = torch.empty(0, device=self.device)
        return Inputs(
            empty.new_empty(0, config.latent_token_dim, dtype=self.dtype),
            empty,
            empty.new_empty(0, config.vision.patch_dim, dtype=self.dtype),
        )

    def _last_logits(self, layout: Layout, hidden: Hidden) -> Tensor:
        """(B, V) float32 at the last token of each sample."""
        ends = torch.tensor(layout.sample_lens, device=self.device).cumsum(0) - 1
        return self.model.logits(hidden.und[layout.expert_rows()[ends]]).float()


def _not_drawn(tokens: Tensor) -> Drawing:
    return Drawing(latents=tokens, decoded=NotFiniteError("latents are"))
