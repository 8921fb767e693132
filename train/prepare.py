"""`staged train --prepare`: the data of a run, read and encoded before any GPU is held for it.

What the run does with its data at its start and in its steps, by the same functions, for every
sample once: a run that follows finds its cache filled, and nothing in its data that would end it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count, takewhile
from typing import Any

import numpy as np
import torch

from staged.devices import AUTO
from staged.jobs.progress import Progress
from train.encoded import require_undamaged
from train.examples import Examples
from train.opening import open_to_read
from train.plan import PackPlan
from train.ranks import Ranks
from train.run_folder import settled
from train.settings import ConditionDropout, Subset, TrainSettings
from train.state import RunState
from train.stream import StepPacks
from train.validation import HeldOut

_KEEP_ALL = ConditionDropout(text=0, image=0)


def prepare(settings: TrainSettings) -> dict[str, Any]:
    """Read every sample that a run would, encode them if `cache` is set, and say what is there.

    Nothing is written but the cache. It computes on the CPU, unless the settings name another
    device, with no weights but the autoencoder's; what was encoded before a kill stays.

    Args:
        settings: Of the run.

    Returns:
        Samples, tokens, packs of an epoch and epochs of the run; also by data set.

    Raises:
        ValueError: A data set or a sample is bad, longer than a pack, or trained on and held out at
            once; names it.
        OSError: Data cannot be read, or the cache not be written.
    """
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    chosen = settings.dtype != AUTO
    if settings.device == AUTO:
        settings = replace(settings, device="cpu")
    resuming = bool(RunState(settings.out).steps())
    settings = settled(settings, Ranks(), resuming=resuming)
    encode = settings.cache is not None
    if encode and not chosen and not resuming:
        print(
            f"latents are encoded in {settings.dtype}, and a run in another precision encodes its "
            "own: give dtype=bfloat16 for one on a GPU"
        )
    codec, tokenizer = open_to_read(settings)

    def opened(subsets: Sequence[Subset], noised_copies: int) -> Examples:
        if not encode:  # which begins with it
            for subset in subsets:
                require_undamaged(subset.path)
        return Examples(
            subsets,
            codec,
            tokenizer,
            settings.cache_folder,
            noised_copies=noised_copies,
            latents=encode,
            streaming=settings.streaming,
        )

    examples = opened(settings.data, settings.noised_copies)
    packs = StepPacks.of(examples, settings)
    held_out = None
    if (validation := settings.validation) is not None:
        subsets = [Subset(path=path) for path in validation.data]
        held_out = opened(subsets, validation.noised_copies)
        HeldOut(settings, held_out, Ranks(), trained=examples)
    _require_readable(examples, settings, "training data")
    if held_out is not None:
        _require_readable(held_out, settings, "held-out data")
    figures = _figures(examples, packs, settings)
    if held_out is not None:
        figures["held_out"] = _subsets(held_out)
    _tell(figures, settings)
    return figures


def _require_readable(examples: Examples, settings: TrainSettings, what: str) -> None:
    """Decode every image and build packs of every sample once, with nothing dropped."""
    every = np.ones(len(examples))
    plan = PackPlan(examples.lengths, every, pack_tokens=settings.pack_tokens, seed=settings.seed)
    packs = StepPacks(examples, plan, examples.special, replace(settings, dropout=_KEEP_ALL))
    progress = Progress(f"checking {what}", len(examples), unit="samples/s")
    for number in count():
        samples = [sample for sample, epoch in plan.pack(number) if not epoch]
        if not samples:
            return
        with examples.at_hand(samples):
            for sample in samples:
                examples.require_images(sample)
            packs.build(number)
        progress.advance(len(samples))


def _figures(examples: Examples, packs: StepPacks, settings: TrainSettings) -> dict[str, Any]:
    first_epoch = list(takewhile(lambda pack: pack[0][1] == 0, map(packs.plan.pack, count())))
    tokens = sum(int(examples.lengths[sample]) for pack in first_epoch for sample, _ in pack)
    room = len(first_epoch) * settings.pack_tokens
    return {
        "samples": len(examples),
        "tokens": int(examples.lengths.sum()),
        "packs_per_epoch": len(first_epoch),
        "filled": tokens / room if room else None,
        "epochs": settings.num_steps * settings.packs_per_step / max(len(first_epoch), 1),
        "encoded": settings.cache is not None,
        "data": _subsets(examples),
    }


def _subsets(examples: Examples) -> list[dict[str, Any]]:
    found, start = [], 0
    for part in examples.parts:
        lengths = examples.lengths[start : start + len(part)]
        start += len(part)
        found.append(
            {
                "folder": part.folder,
                "samples": len(part),
                "tokens": int(lengths.sum()),
                "longest": int(lengths.max(initial=0)),
            }
        )
    return found


def _tell(figures: dict[str, Any], settings: TrainSettings) -> None:
    for kind, parts in (("", figures["data"]), ("held out: ", figures.get("held_out", ()))):
        for part in parts:
            print(
                f"{kind}{part['folder']}: {part['samples']:,} samples, {part['tokens']:,} tokens, "
                f"the longest {part['longest']:,}"
            )
    filled = figures["filled"]
    share = "" if filled is None else f", {filled:.0%} full"
    print(
        f"about {figures['packs_per_epoch']:,} packs of {settings.pack_tokens:,} tokens an epoch"
        f"{share}; {settings.num_steps:,} steps of {settings.packs_per_step} packs are "
        f"{figures['epochs']:.3g} epochs"
    )
    where = (
        f"latents are in {settings.cache}" if settings.cache else "nothing was encoded: no cache"
    )
    print(f"every sample can be read; {where}")
