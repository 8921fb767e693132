"""What takes less memory: overrides for a run that does not fit, each of which the run takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from staged import settings as job_settings
from staged.model.open import base_of
from staged.settings import SettingsError
from train.settings import MAX_NARROW_BETA, TrainSettings

_LOGITS_MIB = 256
_PACK_TOKENS = 16_000
_DRAWING = ("gen", "latents")
_FROZEN = "freeze=[und,vit,connector,words]"


def ways_out(
    settings: TrainSettings, weigh: Callable[[TrainSettings], int]
) -> Iterator[tuple[str, TrainSettings, int]]:
    """What takes less memory, one upon the other; the learning stays as it is as long as it can.

    Args:
        settings: Of a run.
        weigh: Bytes that a run takes.

    Yields:
        Overrides with spaces between; the settings with them and all that were yielded before; what
        these take.
    """
    least = weigh(settings)
    for way in (_recompute, _logits, _moments, _average, _packs, _frozen, _lora):
        overrides = way(settings)
        changed = _changed(settings, overrides)
        if changed is not None and (total := weigh(changed)) < least:
            settings, least = changed, total
            yield " ".join(overrides), settings, total


def keeping_less(settings: TrainSettings, *, needs_average: bool = False) -> list[str]:
    """What leaves less on a device from step to step, each change by itself.

    Args:
        settings: Of a run.
        needs_average: It cannot go without an average of its weights.

    Returns:
        Overrides, those of a change with spaces between; most of the learning stays with the first.
    """
    ways = (*(() if needs_average else (_average,)), _moments, _frozen, _lora)
    found = (way(settings) for way in ways)
    return [" ".join(overrides) for overrides in found if _changed(settings, overrides)]


def _changed(settings: TrainSettings, overrides: list[str]) -> TrainSettings | None:
    """The settings with overrides; None where there are none, or something set forbids them."""
    if not overrides:
        return None
    try:
        return job_settings.from_dict(
            TrainSettings, job_settings.to_dict(settings), overrides=overrides
        )
    except SettingsError:
        return None


def _recompute(settings: TrainSettings) -> list[str]:
    full = settings.activation_checkpointing == "full"
    return [] if full else ["activation_checkpointing=full"]


def _logits(settings: TrainSettings) -> list[str]:
    return [f"max_logits_mib={_LOGITS_MIB}"] if settings.max_logits_mib > _LOGITS_MIB else []


def _moments(settings: TrainSettings) -> list[str]:
    optimizer = settings.optimizer
    if optimizer.kind != "adamw" or optimizer.states == "8bit":
        return []
    overrides = ["optimizer.states=8bit"]
    if max(optimizer.betas) > MAX_NARROW_BETA:
        first, second = (min(beta, MAX_NARROW_BETA) for beta in optimizer.betas)
        overrides.append(f"optimizer.betas=[{first},{second}]")
    return overrides


def _average(settings: TrainSettings) -> list[str]:
    return ["optimizer.ema_decay=0"] if settings.optimizer.ema_decay else []


def _packs(settings: TrainSettings) -> list[str]:
    if settings.pack_tokens <= _PACK_TOKENS:
        return []
    packs = settings.packs_per_step * math.ceil(settings.pack_tokens / _PACK_TOKENS)
    return [f"pack_tokens={_PACK_TOKENS}", f"packs_per_step={packs}"]


def _frozen(settings: TrainSettings) -> list[str]:
    if settings.lora is not None or settings.freeze:
        return []
    return [_FROZEN, *_ratios_of(settings, _DRAWING)]


def _lora(settings: TrainSettings) -> list[str]:
    # Of an adapter the run would want the ranks that it was trained with.
    if settings.lora is not None or base_of(settings.init) != settings.init:
        return []
    overrides = ["lora={}"]
    if settings.freeze:
        overrides.append("freeze=[]")
    if settings.matmuls != "as_dtype":
        overrides.append("matmuls=as_dtype")
    return [*overrides, *_ratios_of(settings, ("und", "gen"))]


def _ratios_of(settings: TrainSettings, parts: tuple[str, ...]) -> list[str]:
    """Overrides that leave learning rates to parts that are trained then, and to no others."""
    ratios = settings.optimizer.lr_ratios
    if ratios.keys() <= set(parts):
        return []
    kept = [f"optimizer.lr_ratios.{part}={ratios[part]}" for part in ratios if part in parts]
    return ["optimizer.lr_ratios={}", *kept]
