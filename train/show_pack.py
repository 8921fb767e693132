"""`staged train --show-pack`: a pack as training will see it, token by token, before it trains.

It is the run's own pack, with its dropout and times, built by the functions that training calls;
nothing is encoded and no weights are read but the autoencoder's, which tell one cache from another.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from staged.devices import settle
from staged.model.layout import Layout, SegmentKind, Tokens
from staged.model.tokenizer import BagelTokenizer
from staged.report.packed import PackedGrid, PackedSample, PackedSegment, PackedToken, TokenKind
from staged.report.page import Report
from train.examples import Examples
from train.opening import open_to_read
from train.packing import Pack
from train.settings import TrainSettings
from train.stream import StepPacks


def show_pack(settings: TrainSettings, number: int, page: Path | None = None) -> dict[str, int]:
    """Print a pack, and write it as a web page if one is named.

    Args:
        settings: Of the run.
        number: Of the pack, from 0; a step takes `packs_per_step` of them.
        page: File to write.

    Returns:
        What is in it, by name.

    Raises:
        ValueError: The run has no such pack, or its data cannot be read.
    """
    count = settings.num_steps * settings.packs_per_step
    if not 0 <= number < count:
        raise ValueError(f"the run has packs 0 to {count - 1}; {number} is none of them")
    settings = settle(settings, tell=lambda _: None)
    codec, tokenizer = open_to_read(settings)
    examples = Examples(
        settings.data,
        codec,
        tokenizer,
        settings.cache_folder,
        noised_copies=settings.noised_copies,
        latents=False,
        streaming=settings.streaming,
    )
    packs = StepPacks.of(examples, settings)
    pack = packs.build(number)
    names = [examples.name(sample) for sample, _ in packs.plan.pack(number)]
    samples = list(packed_samples(pack, tokenizer, names))
    counts = _counts(pack)
    title = f"Pack {number} of {count}, step {number // settings.packs_per_step}"
    lead = _lead(counts, settings)
    print(f"{title}\n{lead}")
    for sample in samples:
        print(f"\n{sample.text()}")
    if page is not None:
        report = Report(title=title, lead=lead, sections=samples, kind="training pack")
        print(f"\n{report.write(page)}")
    return counts


def packed_samples(
    pack: Pack, tokenizer: BagelTokenizer, names: list[str]
) -> Iterator[PackedSample]:
    """Say of every token of a pack what it is.

    Args:
        pack: On the CPU.
        tokenizer: That of its texts.
        names: Of its samples, without the filler that may follow them.
    """
    tokens = _Tokens(pack, tokenizer)
    starts = [0, *accumulate(pack.layout.sample_lens)]
    for number, (start, stop) in enumerate(pairwise(starts)):
        if number < len(names):
            title = f"{names[number]} ({pack.tasks[number]})"
            intro = f"Tokens {start} to {stop - 1}."
        else:
            title = "filler"
            intro = f"Tokens {start} to {stop - 1}, which round the pack up; nothing sees them."
        segments = list(tokens.segments(start, stop))
        there = {segment.number for segment in segments}
        dropped = sorted(set(range(max(there, default=-1) + 1)) - there)
        if dropped:
            intro += f" Dropped this time: segments {', '.join(map(str, dropped))}."
        yield PackedSample(title=title, segments=segments, intro=intro, dropped=dropped)


class _Tokens:
    """A pack's tokens, by their places."""

    def __init__(self, pack: Pack, tokenizer: BagelTokenizer) -> None:
        self._layout = layout = pack.layout
        self._tokenizer = tokenizer
        self._positions: list[int] = layout.position_ids.tolist()
        self._ids = _by_place(layout.text_index, layout.token_ids)
        self._labels = _by_place(layout.ce_index, layout.labels)
        self._weights = _by_place(layout.ce_index, layout.ce_weights)
        self._times = _by_place(layout.latent_index, pack.inputs.timesteps)
        supervised = torch.zeros(len(layout.latent_index), dtype=torch.bool)
        supervised[layout.velocity_rows] = pack.velocity_weights > 0
        self._supervised = _by_place(layout.latent_index, supervised)
        self._grids = _grids(layout)

    def segments(self, start: int, stop: int) -> Iterator[PackedSegment]:
        """The segments of one sample."""
        layout = self._layout
        ids = layout.segment_ids[start:stop]
        numbers, counts = torch.unique_consecutive(ids, return_counts=True)
        lasts = start + counts.cumsum(0) - 1
        firsts = lasts - counts + 1
        # Tokens of a segment differ in what they see of it alone: the first and the last one tell.
        ends = torch.stack([firsts, lasts], dim=1).flatten()
        tokens = Tokens(layout.segment_ids[ends], layout.modes[ends], ends)
        sees = tokens.may_see(tokens)
        kinds = get_args(TokenKind)
        for nth, (number, first, last) in enumerate(
            zip(numbers.tolist(), firsts.tolist(), lasts.tolist(), strict=True)
        ):
            others = sees[2 * nth, ::2].clone()
            others[nth] = False
            yield PackedSegment(
                number=number,
                kind=kinds[int(layout.modes[first])],
                tokens=list(self._tokens(first, last)),
                causal=not bool(sees[2 * nth, 2 * nth + 1]),
                sees=numbers[others].tolist(),
            )

    def _tokens(self, first: int, last: int) -> Iterator[PackedToken | PackedGrid]:
        place = first
        while place <= last:
            if place not in self._ids:
                grid = PackedGrid(
                    place=place,
                    position=self._positions[place],
                    grid=self._grids[place],
                    time=self._times.get(place),
                    supervised=bool(self._supervised.get(place)),
                )
                yield grid
                place += grid.count
                continue
            label = self._labels.get(place)
            yield PackedToken(
                place=place,
                position=self._positions[place],
                text=self._word(int(self._ids[place])),
                label=None if label is None else self._word(int(label)),
                weight=self._weights.get(place, 0.0),
            )
            place += 1

    def _word(self, number: int) -> str:
        if number in vars(self._tokenizer.special).values():
            return str(self._tokenizer.backend.id_to_token(number))
        return self._tokenizer.decode([number])


def _by_place(places: Tensor, values: Tensor) -> dict[int, float]:
    return dict(zip(places.tolist(), values.tolist(), strict=True))


def _grids(layout: Layout) -> dict[int, tuple[int, int]]:
    """Rows and columns of each picture, by the place of its first token."""
    found = {}
    for places, grids in (
        (layout.vision_index, layout.vision_grids),
        (layout.latent_index, layout.latent_grids),
    ):
        first = 0
        for rows, columns in grids:
            found[int(places[first])] = (rows, columns)
            first += rows * columns
    return found


def _counts(pack: Pack) -> dict[str, int]:
    layout = pack.layout
    kinds = {
        f"{name.lower()}_tokens": int((layout.modes == kind).sum())
        for name, kind in SegmentKind.__members__.items()
    }
    return {
        "samples": len(pack.tasks),
        "tokens": layout.num_tokens,
        **kinds,
        "labels": len(layout.labels),
        "velocities": len(layout.velocity_rows),
    }


def _lead(counts: dict[str, int], settings: TrainSettings) -> str:
    return (
        f"{counts['samples']} samples, {counts['tokens']:,} of at most "
        f"{settings.pack_tokens:,} tokens: {counts['text_tokens']:,} of text, "
        f"{counts['noised_tokens']:,} noised, {counts['clean_tokens']:,} of clean latents and "
        f"{counts['vision_tokens']:,} of patches, markers among each. {counts['labels']:,} tokens "
        f"predict a word, {counts['velocities']:,} latents their velocity."
    )
