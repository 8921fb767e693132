"""THE sequence layout: token order, rope positions, attention rules and labels.

Training packs and the engine's incremental contexts are both built by `lay_out`, so the two
cannot disagree. A *segment* is a text block or one copy of an image:

    text    <|im_start|> ids <|im_end|>              causal
    noised  <|vision_start|> latents <|vision_end|>  full within, invisible to all others
    clean   <|vision_start|> latents <|vision_end|>  full within (timestep 0)
    vision  <|vision_start|> patches <|vision_end|>  full within (ViT features)

Everything sees all earlier segments of its sample except noised ones. Text advances the rope
position one a token; an image segment has one position for all its tokens, markers included;
a noised copy does not advance it, so the noised and the clean copy of an image share one. A
dropped image still advances; dropped text does not. (BAGEL, arXiv:2505.14683, and its code.)

Letters: T tokens of a pack, S samples, G rows of a group, L padded length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor


class SegmentKind(IntEnum):
    """What a segment holds."""

    TEXT = 0
    NOISED = 1
    CLEAN = 2
    VISION = 3


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Vocabulary ids of the tokens that frame segments and say what comes next."""

    text_start: int
    text_end: int
    image_start: int
    image_end: int
    stop: int


@dataclass(frozen=True)
class Grids:
    """Token grids of an image as latents and as ViT patches: (rows, columns) each."""

    latent: tuple[int, int]
    vision: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One text block or one copy of an image.

    Attributes:
        kind: What it holds.
        ids: Token ids without markers (text).
        grid: Rows and columns of tokens (images).
        supervised: Text: its ids and closing token are predicted. Noised: its velocity is.
        end_label: Id to predict at the closing token, or None.
        dropped: It takes no tokens; an image still takes its position.
    """

    kind: SegmentKind
    ids: tuple[int, ...] = ()
    grid: tuple[int, int] = (0, 0)
    supervised: bool = False
    end_label: int | None = None
    dropped: bool = False

    def __post_init__(self) -> None:
        """Reject combinations that have no meaning.

        Raises:
            ValueError: An image without a grid, text with one, or a supervised dropped segment.
        """
        is_text = self.kind is SegmentKind.TEXT
        if is_text == (min(self.grid) > 0):
            raise ValueError(
                f"{self.kind.name} segment with grid {self.grid}; only images have one"
            )
        if self.dropped and (self.supervised or self.end_label is not None):
            raise ValueError(f"a dropped {self.kind.name} segment cannot be supervised")

    @property
    def num_tokens(self) -> int:
        """Tokens including both markers; 0 when dropped."""
        if self.dropped:
            return 0
        return 2 + (len(self.ids) if self.kind is SegmentKind.TEXT else self.grid[0] * self.grid[1])


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A pack of samples, ready for the model. All tensors are int64 unless said.

    *Pack order* is sample after sample; *expert order*, in which the model computes, is all text
    and marker tokens, then all ViT tokens, then all latent tokens (the gen expert's).

    Attributes:
        sample_lens: Tokens of each sample (S).
        next_positions: First free rope position of each sample (S).
        position_ids: (T,) rope positions, pack order.
        segment_ids: (T,) index of the token's segment within its sample, pack order.
        modes: (T,) `SegmentKind` of the token's segment, pack order.
        token_ids: (num_text,) vocabulary ids of text and marker tokens.
        text_index: (num_text,) their places in pack order.
        vision_index: (num_vision,) places of ViT tokens.
        latent_index: (num_latent,) places of latent tokens.
        vision_grids: Rows and columns of every ViT copy, in order.
        latent_grids: Rows and columns of every latent copy, in order.
        noised: (num_latent,) bool, whether a latent token belongs to a noised copy.
        velocity_rows: Rows of the latent tokens whose velocity is supervised.
        ce_index: (num_labels,) places of supervised predictions, pack order.
        labels: (num_labels,) ids to predict there.
        ce_weights: (num_labels,) float32, 1/sqrt(labels of the block); 1 for an end label.
    """

    sample_lens: tuple[int, ...]
    next_positions: tuple[int, ...]
    position_ids: Tensor
    segment_ids: Tensor
    modes: Tensor
    token_ids: Tensor
    text_index: Tensor
    vision_index: Tensor
    latent_index: Tensor
    vision_grids: tuple[tuple[int, int], ...]
    latent_grids: tuple[tuple[int, int], ...]
    noised: Tensor
    velocity_rows: Tensor
    ce_index: Tensor
    labels: Tensor
    ce_weights: Tensor

    @property
    def num_tokens(self) -> int:
        """Tokens in the pack."""
        return int(self.position_ids.shape[0])

    @property
    def num_und(self) -> int:
        """Tokens of the und expert: text, markers and ViT tokens."""
        return int(self.text_index.shape[0] + self.vision_index.shape[0])

    def sample_ids(self) -> Tensor:
        """(T,) int64 on the CPU, index of the token's sample, pack order; (0,) of an empty pack."""
        lengths = torch.tensor(self.sample_lens, dtype=torch.int64)
        return torch.arange(len(lengths)).repeat_interleave(lengths)

    def expert_order(self) -> Tensor:
        """(T,) places in pack order, listed in expert order."""
        return torch.cat([self.text_index, self.vision_index, self.latent_index])

    def expert_rows(self) -> Tensor:
        """(T,) row in expert order of every place in pack order."""
        order = self.expert_order()
        rows = torch.empty_like(order)
        rows[order] = torch.arange(order.shape[0], device=order.device)
        return rows

    def to(self, device: torch.device | str) -> Self:
        """The same layout with its tensors on `device`."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    def mask(self, sample: int) -> Tensor:
        """Which keys each token of one sample may see.

        Returns:
            (length, length) bool, queries by keys.
        """
        start = sum(self.sample_lens[:sample])
        window = slice(start, start + self.sample_lens[sample])
        return visible(self.segment_ids[window], self.modes[window])


class Tokens(NamedTuple):
    """What the attention rule asks of tokens, all of one sample in each row.

    Attributes:
        segment_ids: (..., L) segment of each token; padding has one of its own.
        modes: (..., L) `SegmentKind` values.
        places: (..., L) where it stands among the tokens of its sample, from any start.
    """

    segment_ids: Tensor
    modes: Tensor
    places: Tensor

    def may_see(self, keys: Tokens) -> Tensor:
        """The attention rule.

        Returns:
            (..., Q, K) bool: which of `keys` each of these tokens may see.
        """
        query, key = self.segment_ids[..., :, None], keys.segment_ids[..., None, :]
        not_later = self.places[..., :, None] >= keys.places[..., None, :]
        causal = (self.modes == SegmentKind.TEXT)[..., :, None]
        earlier = (key < query) & (keys.modes != SegmentKind.NOISED)[..., None, :]
        return earlier | ((key == query) & (~causal | not_later))


def visible(segment_ids: Tensor, modes: Tensor) -> Tensor:
    """The attention rule, for tokens of one sample (or padded rows of several).

    Args:
        segment_ids: (..., L) segment of each token; padding has a segment of its own.
        modes: (..., L) `SegmentKind` values.

    Returns:
        (..., L, L) bool: query (second last) may see key (last).
    """
    places = torch.arange(segment_ids.shape[-1], device=segment_ids.device)
    tokens = Tokens(segment_ids, modes, places.expand_as(segment_ids))
    return tokens.may_see(tokens)


def lay_out(
    samples: Sequence[Sequence[Segment]],
    special: SpecialTokens,
    *,
    first_positions: Sequence[int] | None = None,
) -> Layout:
    """Lay samples out one after another.

    Args:
        samples: The segments of each sample, in order.
        special: Ids of the framing tokens.
        first_positions: Rope position at which each sample starts: 0 for training, the
            context's next position when a chunk is appended to a cache.

    Returns:
        The layout; indices count from the pack's first token.
    """
    builder = _Builder(special)
    starts = first_positions if first_positions is not None else [0] * len(samples)
    for segments, start in zip(samples, starts, strict=True):
        builder.add_sample(segments, start)
    return builder.build()


class _Builder:
    """Lists that grow token by token and become a `Layout`."""

    def __init__(self, special: SpecialTokens) -> None:
        self.special = special
        self.sample_lens: list[int] = []
        self.next_positions: list[int] = []
        self.positions: list[int] = []
        self.segment_ids: list[int] = []
        self.modes: list[int] = []
        self.token_ids: list[int] = []
        self.text_index: list[int] = []
        self.image_index: dict[bool, list[int]] = {False: [], True: []}  # by "is ViT"
        self.grids: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
        self.noised: list[bool] = []
        self.velocity_rows: list[int] = []
        self.ce_index: list[int] = []
        self.labels: list[int] = []
        self.ce_weights: list[float] = []

    def add_sample(self, segments: Sequence[Segment], position: int) -> None:
        start = len(self.positions)
        for number, segment in enumerate(segments):
            if not segment.dropped:
                self.segment_ids.extend([number] * segment.num_tokens)
                self.modes.extend([int(segment.kind)] * segment.num_tokens)
                if segment.kind is SegmentKind.TEXT:
                    self._add_text(segment, position)
                else:
                    self._add_image(segment, position)
            # A dropped image moves on all the same, as upstream: what follows stands where it
            # stands with the image. A noised copy does not: the clean one after it takes its place.
            if segment.kind is SegmentKind.TEXT:
                position += segment.num_tokens
            elif segment.kind is not SegmentKind.NOISED:
                position += 1
        self.sample_lens.append(len(self.positions) - start)
        self.next_positions.append(position)

    def _add_text(self, segment: Segment, position: int) -> None:
        ids = [self.special.text_start, *segment.ids, self.special.text_end]
        place = len(self.positions)
        self.text_index.extend(range(place, place + len(ids)))
        self.token_ids.extend(ids)
        self.positions.extend(range(position, position + len(ids)))
        if segment.supervised:
            targets = ids[1:]
            self.ce_index.extend(range(place, place + len(targets)))
            self.labels.extend(targets)
            # By the root, as upstream: were all tokens alike, a description would drown a verdict
            # of one word; were all blocks alike, a token of the description would hardly count.
            self.ce_weights.extend([len(targets) ** -0.5] * len(targets))
        self._label_end(segment)

    def _add_image(self, segment: Segment, position: int) -> None:
        place, count = len(self.positions), segment.num_tokens
        is_vision = segment.kind is SegmentKind.VISION
        # Markers belong to the und expert, around latents too.
        self.text_index.extend([place, place + count - 1])
        self.token_ids.extend([self.special.image_start, self.special.image_end])
        self.image_index[is_vision].extend(range(place + 1, place + count - 1))
        self.grids[is_vision].append(segment.grid)
        self.positions.extend([position] * count)
        if not is_vision:
            if segment.supervised:
                first = len(self.noised)
                self.velocity_rows.extend(range(first, first + count - 2))
            self.noised.extend([segment.kind is SegmentKind.NOISED] * (count - 2))
        self._label_end(segment)

    def _label_end(self, segment: Segment) -> None:
        if segment.end_label is not None:
            self.ce_index.append(len(self.positions) - 1)
            self.labels.append(segment.end_label)
            # As a block of one label would weigh.
            self.ce_weights.append(1.0)

    def build(self) -> Layout:
        return Layout(
            sample_lens=tuple(self.sample_lens),
            next_positions=tuple(self.next_positions),
            position_ids=_integers(self.positions),
            segment_ids=_integers(self.segment_ids),
            modes=_integers(self.modes),
            token_ids=_integers(self.token_ids),
            text_index=_integers(self.text_index),
            vision_index=_integers(self.image_index[True]),
            latent_index=_integers(self.image_index[False]),
            vision_grids=tuple(self.grids[True]),
            latent_grids=tuple(self.grids[False]),
            noised=torch.tensor(self.noised, dtype=torch.bool),
            velocity_rows=_integers(self.velocity_rows),
            ce_index=_integers(self.ce_index),
            labels=_integers(self.labels),
            ce_weights=torch.tensor(self.ce_weights, dtype=torch.float32),
        )


def _integers(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
