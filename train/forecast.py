"""`staged train --plan`: memory, time and cost of a run before any device is held.

Weights, gradients, moments and the average are counted on a model without memory, as the run itself
counts them before it begins; activations by its own layers (`train.activations`). What kernels use
inside of themselves, and what an allocator loses, are a share on top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import staged
from staged.device_memory import GIB, gib
from staged.model.adapter import read_adapter
from staged.model.bagel import Bagel
from staged.model.config import BagelConfig, TransformerConfig
from staged.model.config_files import read_config
from staged.model.open import base_of, look_at_checkpoint
from staged.model.work import attention_flops, linear_flops
from train.activations import count_activations, head_bytes
from train.float8 import require_float8_sums
from train.gpus import Gpu
from train.lora import low_ranks, require_same_lora, trained_parameters
from train.memory import kept_bytes
from train.num_ranks import problem_of_ranks, require_ranks
from train.optimizer import make_optimizers
from train.parts import keep_frozen_narrow
from train.settings import TrainSettings
from train.ways_out import ways_out

PUBLISHED = "ByteDance-Seed/BAGEL-7B-MoT"
_SHIPPED = Path(staged.__file__).parents[1] / "configs/bagel_7b/model"
_OVERHEAD = 0.05  # of fragments and workspaces
_CONTEXT = GIB  # the driver's, and NCCL's buffers
_MAX_RANKS = 1024


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Of one rank.

    Attributes:
        parts: Bytes, by what they are for.
        step_flops: Operations of a step over all ranks, recomputation among them.
        model_flops: Those that the mathematics asks for.
        ranks: Of the run.
    """

    parts: dict[str, int]
    step_flops: float
    model_flops: float
    ranks: int

    @property
    def total(self) -> int:
        """Bytes in all, with what is lost."""
        return int(sum(self.parts.values()) * (1 + _OVERHEAD)) + _CONTEXT

    def step_s(self, gpu: Gpu, utilization: float) -> float:
        """Seconds of a step, at a share of the device's rate, the slowest rank's passes counted."""
        return self.step_flops / (self.ranks * gpu.flops * utilization)


def config_of(init: str) -> BagelConfig:
    """The configuration of a run's model; weights need not be there.

    Raises:
        ValueError: It is not known without fetching the checkpoint.
    """
    base = base_of(init)
    if Path(base).is_dir():
        return read_config(Path(base))
    if base == PUBLISHED:
        return read_config(_SHIPPED)
    if ":" in base:
        return look_at_checkpoint(base).config
    raise ValueError(
        f"init {init} is no folder here, and its configuration is not known; fetch it first "
        f"(hf download {init} --local-dir FOLDER)"
    )


def forecast(settings: TrainSettings, config: BagelConfig, ranks: int = 1) -> Forecast:
    """Count a run.

    Args:
        settings: Of the run; `dtype` is taken as bfloat16 where it is `auto`, and what is frozen to
            be stored in it.
        config: Of its model.
        ranks: Among which the model is cut, but for `parallel.replicas`.

    Raises:
        ValueError: So many ranks cannot share the run, or the settings ask for what no device
            computes; as the run itself says it.
    """
    require_ranks(settings, ranks)
    dtype = torch.bfloat16 if settings.dtype == "auto" else getattr(torch, settings.dtype)
    require_float8_sums(settings, dtype)
    with torch.device("meta"):
        model = Bagel(config).to(torch.float32 if settings.lora is None else dtype)
    trained = trained_parameters(model, settings)
    keep_frozen_narrow(model, dtype)
    shards = ranks // settings.parallel.replicas
    optimizer = make_optimizers(trained, settings.optimizer, dtype)
    averaged = settings.optimizer.ema_decay > 0
    parts = kept_bytes(model, trained, optimizer, averaged=averaged, dtype=dtype, shards=shards)
    if shards > 1:
        parts["gathered layers"] = _gathered(model, dtype, settings)
    tokens = settings.pack_tokens
    counted = count_activations(config.transformer, dtype, settings.activation_checkpointing)
    parts["activations"] = counted.of_pack(config.transformer, tokens)
    # The head runs while the layers' activations wait; its labels are taken as half of the tokens.
    head = head_bytes(config.transformer, dtype, tokens // 2, settings.max_logits_mib)
    parts["words"] = max(head - int(counted.passing * tokens), 0)
    work, more = _flops(config.transformer, settings, trained)
    passes = math.ceil(settings.packs_per_step / ranks) * ranks
    return Forecast(
        parts=parts, step_flops=passes * (work + more), model_flops=passes * work, ranks=ranks
    )


def _gathered(model: Bagel, dtype: torch.dtype, settings: TrainSettings) -> int:
    """What is whole at a time: the root's own weights, and a layer beside the one that comes."""
    layer = sum(p.numel() for p in model.layers[0].parameters())
    inside = layer * len(model.layers) + sum(p.numel() for p in model.vision.layers.parameters())
    root = sum(p.numel() for p in model.parameters()) - inside
    layers = 2 * layer if settings.parallel.reshard else inside
    gradient = 0 if settings.lora is not None else layer * (dtype.itemsize + 4)
    return (root + layers) * dtype.itemsize + gradient


def _flops(
    config: TransformerConfig, settings: TrainSettings, trained: dict[str, nn.Parameter]
) -> tuple[float, float]:
    """Of a pack: what the mathematics asks for, and what is made again.

    Half of the tokens are of either expert, half predict a word, and all see half of the pack at
    most; what is frozen needs no gradient of its weights.
    """
    tokens = settings.pack_tokens
    linear = linear_flops(config, tokens)
    attention = attention_flops(config, tokens * tokens // 4)
    forward = linear + attention
    share = sum(
        0.5 for expert in ("und", "gen") if any(f".{expert}.q_proj.weight" in n for n in trained)
    )
    words = 2 * tokens / 2 * config.hidden_size * config.vocab_size
    model = 2 * forward + attention + linear * share + 3 * words
    again = {"none": 0.0, "selective": 0.0, "full": forward}[settings.activation_checkpointing]
    return model, again


def ranks_needed(settings: TrainSettings, config: BagelConfig, gpu: Gpu) -> int | None:
    """Ranks among which a run fits as it is, and which can share it; None for none.

    The fewest where each copy of the model is cut among a power of two, or else as many as can.
    """

    def fits(ranks: int) -> bool:
        return forecast(settings, config, ranks).total <= gpu.memory

    able = [n for n in range(1, _MAX_RANKS + 1) if not problem_of_ranks(settings, n)]
    # The more there are the less each holds, but for one alone, which gathers nothing.
    if not able or not (fits(able[-1]) or fits(able[0])):
        return None
    usual = [n for n in able if (n // settings.parallel.replicas).bit_count() == 1]
    return next(n for n in (*usual, able[-1]) if fits(n))


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run is planned for.

    Attributes:
        name: Of the device.
        gpu: Its figures.
        ranks: How many.
        utilization: Share of its rate that a step is taken to reach.
        usd_per_gpu_hour: Price; None for unknown.
    """

    name: str
    gpu: Gpu
    ranks: int
    utilization: float
    usd_per_gpu_hour: float | None


def tell(settings: TrainSettings, machine: Machine) -> dict[str, Any]:
    """Print the forecast of a run on a machine.

    Returns:
        Its figures.

    Raises:
        ValueError: As `config_of` and `forecast`, or the device lacks what the settings ask for.
    """
    if settings.matmuls == "float8" and not machine.gpu.float8:
        raise ValueError(
            f"matmuls=float8, and {machine.name} does not multiply float8; leave it at as_dtype, "
            "or plan for an h100 and its like"
        )
    config = config_of(settings.init)
    if settings.lora is not None and base_of(settings.init) != settings.init:
        wanted = low_ranks(config.transformer, settings.lora)
        require_same_lora(read_adapter(settings.init).low_ranks, wanted)
    found = forecast(settings, config, machine.ranks)
    fits = found.total <= machine.gpu.memory
    print(f"{settings.init} on {machine.ranks} x {machine.name}, GiB a rank:")
    for name, size in found.parts.items():
        if size:
            print(f"  {name:16} {size / GIB:7.1f}")
    print(
        f"  {'in all':16} {found.total / GIB:7.1f}   with {_OVERHEAD:.0%} for fragments and "
        f"{gib(_CONTEXT)} for the driver\n"
        f"  {'the device has':16} {machine.gpu.memory / GIB:7.1f}   "
        f"{'it fits' if fits else 'IT DOES NOT FIT'}"
    )
    step_s = found.step_s(machine.gpu, machine.utilization)
    hours = settings.num_steps * step_s / 3600
    tokens = settings.pack_tokens * settings.packs_per_step
    print(
        f"a step of {tokens:,} tokens takes {step_s:.1f} s, {settings.num_steps:,} of them "
        f"{hours:.1f} h, at {machine.utilization:.0%} of {machine.gpu.flops / 1e12:.0f} TFLOP/s "
        "(assumed; a log's tokens_per_s tells)"
    )
    figures: dict[str, Any] = {
        "fits": fits,
        "bytes": found.total,
        "parts": found.parts,
        "step_s": step_s,
        "hours": hours,
        "flops": found.model_flops,
    }
    if machine.usd_per_gpu_hour is not None:
        figures["usd"] = hours * machine.ranks * machine.usd_per_gpu_hour
        print(f"that costs {figures['usd']:,.0f} USD")
    if not fits:
        figures["ways_out"] = _tell_ways_out(settings, config, machine)
    return figures


def _tell_ways_out(
    settings: TrainSettings, config: BagelConfig, machine: Machine
) -> list[dict[str, Any]]:
    print(f"as it is, it fits on {_where(settings, config, machine)}")
    print(f"on {machine.ranks}, one upon the other:")
    ways: list[dict[str, Any]] = []
    for words, _, total in ways_out(settings, lambda s: forecast(s, config, machine.ranks).total):
        fits = total <= machine.gpu.memory
        ways.append({"change": words, "bytes": total, "fits": fits})
        print(f"  {words:36} {total / GIB:7.1f}{'   it fits' if fits else ''}")
        if fits:
            break
    return ways


def _where(settings: TrainSettings, config: BagelConfig, machine: Machine) -> str:
    """On how many devices a run fits, with more packs where it has too few for them."""
    if needed := ranks_needed(settings, config, machine.gpu):
        return f"{needed} x {machine.name}"
    none = f"no number of {machine.name}"
    if settings.packs_per_step >= _MAX_RANKS:
        return none
    more = ranks_needed(replace(settings, packs_per_step=_MAX_RANKS), config, machine.gpu)
    if more is None:
        return none
    return f"{none}; with packs_per_step={more} it fits on {more}"
