"""Whether rows come out of the model with the same bits beside others' as alone: it is tried.

A product of matrices may sum a row otherwise where there are more rows, and which numbers of rows
share an order is nowhere promised. The order depends on the shapes alone; whether another one shows
in the bits depends on the numbers, of which a model that learns has others after each step. So
before images share calls their shapes are tried once, with numbers that show any order (see
`staged.engine.summing`) and through a layer of the model; where a bit differs they share none. What
was found stays true whatever the weights become. Where an activation ends within a vector, other
code rounds one number in 25 otherwise (float32, on a CPU), too few for a trial to meet them: there
images share none either. Attention is not tried: each context has a call of its own (see
`staged.engine.context`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from staged.engine.summing import products_of, sums_alike
from staged.engine.velocity import Grid, noised_layout
from staged.model.bagel import Bagel, Hidden, Inputs
from staged.model.layout import SpecialTokens

Shape = tuple[Grid, int]
"""Latent tokens of an image, and branches of its guidance."""

_OF_ALL, _OF_LATENTS = ("layers.0.",), ("latent_in", "time_embed.", "latent_out")
"""Begin the names of what all rows go through, and of what latents do."""

_VECTORS_BYTES = 128
"""What elementwise kernels take at a time: two of the widest vectors."""

_MIN_PART = 1 << 15
"""Numbers that elementwise kernels leave to one thread: ATen's grain size."""

_MAX_KNOWN = 4096
"""Of the combinations that were tried, so many are remembered."""


class Company:
    """Which images may share a call of a model."""

    def __init__(self, model: Bagel, special: SpecialTokens) -> None:
        """Know nothing yet."""
        self._model, self._special = model, special
        self._known: dict[tuple[int, tuple[Shape, ...]], bool] = {}

    def changes_nothing(self, shapes: Sequence[Shape]) -> bool:
        """Whether images of these shapes, in this order, come out of one call as out of their own.

        Tried in one layer, for all have the same shapes: half a step's time. Known at once when it
        is asked again.
        """
        if len(shapes) == 1:
            return True
        # Kernels part their work among threads, so with another number they are others.
        key = torch.get_num_threads(), tuple(shapes)
        if key not in self._known:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[key] = (
                self._fills_vectors(shapes) and self._sum_alike(shapes) and self._try(shapes)
            )
        return self._known[key]

    def _sum_alike(self, shapes: Sequence[Shape]) -> bool:
        """Whether all products sum the rows of each image in the same order."""
        like = self._model.embed_tokens.weight
        tokens, markers = _num_rows(shapes)
        return all(
            sums_alike(product, parts, like)
            for prefixes, parts in ((_OF_ALL, tokens), (_OF_ALL, markers), (_OF_LATENTS, tokens))
            for product in products_of(
                module
                for name, module in self._model.named_modules()
                if isinstance(module, nn.Linear) and name.startswith(prefixes)
            )
        )

    def _fills_vectors(self, shapes: Sequence[Shape]) -> bool:
        """Whether activations take whole vectors, of each image and of all."""
        decoder = self._model.config.transformer
        size = self._model.embed_tokens.weight.itemsize
        tokens, markers = _num_rows(shapes)
        return all(
            _whole_vectors(num_rows * width, size)
            for rows, width in (
                (tokens, decoder.hidden_size),
                (tokens, decoder.intermediate_size),
                (markers, decoder.intermediate_size),
            )
            for num_rows in (*rows, sum(rows))
        )

    def _try(self, shapes: Sequence[Shape]) -> bool:
        config, weight = self._model.config, self._model.embed_tokens.weight
        generator = torch.Generator().manual_seed(0)
        rows, _ = _num_rows(shapes)
        latents = torch.randn(sum(rows), config.latent_token_dim, generator=generator)
        times = torch.rand(sum(rows), generator=generator)

        def run(some: Sequence[Shape], first: int, count: int) -> Hidden:
            device, here = weight.device, slice(first, first + count)
            layout = noised_layout(some, self._special, [0] * sum(n for _, n in some)).to(device)
            inputs = Inputs(
                latents[here].to(device, weight.dtype),
                times[here].to(device),
                weight.new_empty(0, config.vision.patch_dim),
            )
            hidden: Hidden = self._model(layout, inputs, _without_others, num_layers=1)
            return hidden

        together, first = run(shapes, 0, sum(rows)), 0
        alone = list[Hidden]()
        for shape, count in zip(shapes, rows, strict=True):
            alone.append(run([shape], first, count))
            first += count
        return all(
            torch.equal(ours, torch.cat(theirs))
            for ours, theirs in (
                (together.und, [hidden.und for hidden in alone]),
                (self._model.velocity(together.gen), self._velocities(alone)),
            )
        )

    def _velocities(self, alone: Sequence[Hidden]) -> list[Tensor]:
        return [self._model.velocity(hidden.gen) for hidden in alone]


def _num_rows(shapes: Sequence[Shape]) -> tuple[list[int], list[int]]:
    """Rows of each image: latent tokens, and markers."""
    tokens = [grid[0] * grid[1] * count for grid, count in shapes]
    return tokens, [2 * count for _, count in shapes]


def _whole_vectors(num: int, size: int) -> bool:
    """Whether so many numbers of so many bytes fill vectors, in each thread that gets a part."""
    parts = min(torch.get_num_threads(), -(-num // _MIN_PART))
    return all(some * size % _VECTORS_BYTES == 0 for some in (num, -(-num // parts)))


def _without_others(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Stands for attention: of each row's own query, key and value; see `Attend`."""
    shared = query.shape[1] // key.shape[1]
    return query + (key + value).repeat_interleave(shared, dim=1)
