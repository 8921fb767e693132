"""The looped generator: one persistent cache a trajectory; text, looking and drawing append to it.

Every operation takes many contexts, and what a context yields never depends on which others there
are, to the bit. Numbers that are summed in another order round otherwise, and kernels choose the
order by the shapes they are given. So a text or image is read in a call of its own; texts are
written in steps of a fixed number of rows (see `staged.engine.decoding`, which also says where that
is looked at); images share the calls of their steps only where it was tried that no bit changes by
that (`staged.engine.company`); the autoencoder gets one image at a time; each context has its own
mask, random numbers and guidance norm. Another device, number of threads, precision or version of
torch is another matter: there the last digits do differ.

Letters: B contexts, n latent tokens, Z numbers a latent token, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staged.device_memory import free_memory
from staged.engine.cache import MAX_CACHED_TOKENS, PagedCache
from staged.engine.context import ChunkAttention, Context
from staged.engine.decoding import Decoder
from staged.engine.drawing import Drawer, ImageOnItsWay, OnStep
from staged.engine.graphs import Graphs
from staged.engine.memory import Footprint
from staged.engine.sampling import Drawing, TextBlock
from staged.engine.text_sampling import TextSampling
from staged.engine.velocity import GuidedImage
from staged.model.bagel import Bagel, Inputs
from staged.model.codec import ImageCodec
from staged.model.finite import NotFiniteError, all_finite
from staged.model.flow import time_grid
from staged.model.flows import Flows, FlowSettings
from staged.model.layout import Segment, SegmentKind, lay_out
from staged.model.quantized import quantization_of_model
from staged.model.tokenizer import BagelTokenizer
from staged.sequence import clean_copies, text_block


class Engine:
    """A model that reads and writes contexts."""

    def __init__(
        self,
        model: Bagel,
        codec: ImageCodec,
        tokenizer: BagelTokenizer,
        *,
        flows: Flows | None = None,
        shares_calls: bool = True,
    ) -> None:
        """Wrap a loaded model; it stays on its device, in its dtype.

        Args:
            model: In evaluation mode.
            codec: For its configuration, on the same device.
            tokenizer: Of the same checkpoint.
            flows: How the checkpoint's pictures are drawn, for whoever asks; by default as the
                published model draws.
            shares_calls: Whether images take their steps together where that was tried to change
                no bit, and steps on CUDA are replayed (`staged.engine.graphs`). What is found is a
                process's own: it changes no picture, but how often the model is asked, so ranks
                among which a model is cut draw alone.
        """
        self.model, self.codec, self.tokenizer = model, codec, tokenizer
        self.special = tokenizer.special
        self.flows = flows or Flows()
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self._config = model.config
        self._decoder = Decoder(model, tokenizer)
        self._drawer = Drawer(model, self.special, shares_calls=shares_calls)

    # --- reading -----------------------------------------------------------------------------

    @torch.inference_mode()
    def append(
        self,
        contexts: Sequence[Context],
        segments: Sequence[Sequence[Segment]],
        inputs: Sequence[Inputs] | None = None,
    ) -> list[Tensor]:
        """Append segments to contexts, in a forward pass for each.

        Args:
            contexts: Changed in place.
            segments: What each context gets; at least one token each.
            inputs: For each context what fills its image tokens, in order.

        Returns:
            For each context the (V,) float32 logits at its last token: after a closing marker,
            what comes next.

        Raises:
            OutOfPagesError: The cache of a context is full; that context is as it was.
        """
        inputs = inputs or [self._no_images()] * len(contexts)
        return [
            self._append(context, given, fill)
            for context, given, fill in zip(contexts, segments, inputs, strict=True)
        ]

    def _append(self, context: Context, segments: Sequence[Segment], inputs: Inputs) -> Tensor:
        layout = lay_out([segments], self.special, first_positions=[context.position])
        [position], layout = layout.next_positions, layout.to(self.device)
        context.keep_in(self.cache)
        context.grow(layout.num_tokens)
        try:
            hidden = self.model(layout, inputs, ChunkAttention([context], layout, keep=True))
        except BaseException:
            context.shrink(layout.num_tokens)
            raise
        context.position = position
        context.has_images |= any(s.kind is not SegmentKind.TEXT for s in segments)
        # The head over the last token alone: an image has thousands, a vocabulary 152,064 words.
        last = layout.expert_rows()[-1:]
        return self.model.logits(hidden.und.index_select(0, last))[0].float()

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
        inputs = [self._clean(picture, vision_only) for picture in pictures]
        grids = [self.codec.grids(*picture.shape[:2]) for picture in pictures]
        first = 1 if vision_only else 0
        return self.append(contexts, [clean_copies(grid)[first:] for grid in grids], inputs)

    def _clean(self, picture: NDArray[np.uint8], vision_only: bool) -> Inputs:
        """What fills the two clean copies of an image, or the ViT copy alone."""
        if vision_only:
            latents = self._no_images().latents
        else:
            latents = self.codec.to_latents(picture).to(self.device, self.dtype)
        patches = self.codec.to_patches(picture).to(self.device, self.dtype)
        return Inputs(latents, torch.zeros(len(latents), device=self.device), patches)

    # --- writing -----------------------------------------------------------------------------

    @torch.inference_mode()
    def write(
        self,
        contexts: Sequence[Context],
        sampling: Sequence[TextSampling],
        on_token: Callable[[int, int], None] | None = None,
    ) -> list[TextBlock]:
        """Let each context write one text block; the contexts stay as they are.

        A block that shall stand in its context is appended to it. What was read token by token
        differs in the last digits from what was read at once, and a context should be the same
        whether its text was just written or comes from elsewhere.

        Args:
            contexts: What is written after.
            sampling: One for each context.
            on_token: Called with (index of the context, token id) as tokens come; of those that
                may yet be taken back (`TextSampling.without`) once they may not.

        Returns:
            The blocks, in order. One that did not end in time, or whose logits were not finite,
            says so.

        Raises:
            OutOfPagesError: A cache has no room for as many blocks of `max_tokens` as are written
                at a time.
        """
        for context in contexts:
            context.keep_in(self.cache)
        return [
            TextBlock(
                ids=tuple(written.ids),
                text=self.tokenizer.decode(tuple(written.ids)),
                finished=written.finished,
                finite=written.finite,
            )
            for written in self._decoder.write(contexts, sampling, on_token)
        ]

    @property
    def num_text_slots(self) -> int:
        """Contexts that write at a time, each with room for the longest that it may write."""
        return self._decoder.num_slots

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
        settings: Sequence[FlowSettings],
        on_step: OnStep | None = None,
    ) -> list[Drawing]:
        """Draw one image in each context; the contexts stay as they are.

        The branches of an image's guidance share a call. Images do where it is of use and changes
        none of them; see `staged.engine.drawing`.

        Args:
            contexts: With everything the image shall follow.
            without_text: The same without the last text.
            without_images: The same with texts only; not read where the context has no images.
            sizes: (height, width) of each image in pixels.
            seeds: Of each image's noise.
            settings: Steps, grid, guidance of each.
            on_step: Called with (index of the context, steps done, (n, Z) estimate of the finished
                latents), the estimate being where the velocity of that step leads in a straight
                line.

        Returns:
            The drawings, in order. One whose numbers were not finite holds that instead of pixels.

        Raises:
            ValueError: A size is no multiple of the pixels per latent token, or too large.
        """
        images = self.begin(
            contexts, without_text, without_images, sizes=sizes, seeds=seeds, settings=settings
        )
        return self.finish(images, on_step)

    def begin(
        self,
        contexts: Sequence[Context],
        without_text: Sequence[Context],
        without_images: Sequence[Context],
        *,
        sizes: Sequence[tuple[int, int]],
        seeds: Sequence[int],
        settings: Sequence[FlowSettings],
    ) -> list[ImageOnItsWay]:
        """Images that are noise as yet; see `draw` for what they are of, then `step`, `finish`."""
        stride = self._config.pixels_per_latent_token
        for height, width in sizes:
            self._config.check_picture(height, width)
        return [
            ImageOnItsWay(
                number=row,
                image=GuidedImage(
                    branches=branches,
                    grid=(sizes[row][0] // stride, sizes[row][1] // stride),
                    guidance=settings[row].guidance,
                ),
                times=time_grid(
                    settings[row].num_flow_steps, settings[row].timestep_shift
                ).tolist(),
                x_t=self.noise(seeds[row], sizes[row][0] * sizes[row][1] // stride**2).to(
                    self.device
                ),
                forecast=settings[row].forecast,
            )
            for row, branches in enumerate(zip(contexts, without_text, without_images, strict=True))
        ]

    @torch.inference_mode()
    def step(self, images: Sequence[ImageOnItsWay], on_step: OnStep | None = None) -> None:
        """Take the first of some images a step on, as many as gain from it.

        An image may be begun while others are half drawn, and joins their next step. Its contexts
        must be there as long as it is stepped.

        Args:
            images: That were begun. Those that have ended are passed over.
            on_step: As of `draw`; told the `number` of the image.
        """
        self._drawer.step(images, on_step)

    def finish(
        self, images: Sequence[ImageOnItsWay], on_step: OnStep | None = None
    ) -> list[Drawing]:
        """Draw images that were begun to their end; see `draw`."""
        while not all(image.ended for image in images):
            self.step(images, on_step)
        return [self.finished(image) for image in images]

    @property
    def graphs(self) -> Graphs:
        """Whether steps are replayed; see `staged.engine.graphs`."""
        return self._drawer.graphs

    @torch.inference_mode()
    def finished(self, drawn: ImageOnItsWay) -> Drawing:
        """What became of an image that has ended."""
        latents = drawn.x_t
        # What a velocity was at any step shows in the latents, so one look at the end will do,
        # and the device is waited for once.
        if not all_finite(latents):
            return Drawing(latents=latents, decoded=NotFiniteError("latents are"))
        try:
            return Drawing(latents=latents, decoded=self.codec.decode(latents, *drawn.image.grid))
        except NotFiniteError as error:
            return Drawing(latents=latents, decoded=error)

    def num_drawn_together(self, height: int, width: int, num_branches: int) -> int:
        """Images of a size in pixels, and branches of guidance, that gain from a common step."""
        return self._drawer.num_together(self._rows((height, width), num_branches))

    def num_stepped(self, sizes: Sequence[tuple[int, int]], branches: Sequence[int]) -> int:
        """Of images with such sizes and branches, those that `step` takes on, from the first."""
        return self._drawer.num_first(list(map(self._rows, sizes, branches)))

    def _rows(self, size: tuple[int, int], num_branches: int) -> int:
        return num_branches * (size[0] * size[1] // self._config.pixels_per_latent_token**2 + 2)

    def noise(self, seed: int, num_tokens: int) -> Tensor:
        """(num_tokens, Z) float32 on the CPU: the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(num_tokens, self._config.latent_token_dim, generator=generator)

    # --- memory ------------------------------------------------------------------------------

    @property
    def footprint(self) -> Footprint:
        """What the model takes; guidance by as many branches as there can be."""
        return Footprint(
            config=self._config,
            sizes=self.codec.sizes,
            dtype=self.dtype,
            device=self.device,
            quantization=quantization_of_model(self.model),
        )

    @cached_property
    def cache(self) -> PagedCache:
        """Where contexts are kept that were given no cache of their own."""
        return self.new_cache(self.cacheable_tokens(MAX_CACHED_TOKENS))

    def new_cache(self, num_tokens: int, *, page_size: int | None = None) -> PagedCache:
        """A cache for contexts of this engine; see `staged.engine.cache.PagedCache`."""
        return self._decoder.cache(num_tokens, page_size=page_size)

    def cacheable_tokens(self, most: int) -> int:
        """Tokens whose keys and values there is room for now, between 1 and `most`."""
        footprint = self.footprint
        free = footprint.promised(free_memory(self.device))
        return min(max(footprint.tokens_in(free, most), 1), most)

    # --- shared ------------------------------------------------------------------------------

    def _no_images(self) -> Inputs:
        config = self._config
        empty = torch.empty(0, device=self.device)
        return Inputs(
            empty.new_empty(0, config.latent_token_dim, dtype=self.dtype),
            empty,
            empty.new_empty(0, config.vision.patch_dim, dtype=self.dtype),
        )
