"""Section training: the trainer's own step over a long pack, with FSDP2 on one device.

Forward, backward, clipping and optimizer as a run takes them: float32 masters, bfloat16 products,
layers made again in the backward pass. A LoRA beside all 28 layers is what one GPU of 80 GB holds
at full size; where more memory is there, what draws is trained whole. All weights are trained of 8
layers.

`mfu` is strict: pairs that may see one another, heads where something is supervised, and no
gradient of what is frozen; nothing that is made again counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from benchmarks.parts import models, packs
from benchmarks.parts.harness import Recorder, Setup, peak_gib, reset_peak, time_s
from staged.device_memory import gib, memory_of
from staged.model.bagel import Bagel
from staged.model.config import BagelConfig
from staged.model.recompute import set_recompute
from staged.model.work import train_flops
from train.attention import AttendTo, choose_attention
from train.clipping import clip_gradients
from train.lora import trained_parameters
from train.memory import kept_bytes
from train.objective import Objective, Supervised, forward_in, mean_losses
from train.optimizer import make_optimizers
from train.packing import Pack
from train.parts import PARTS, Part, keep_frozen_narrow
from train.ranks import Ranks
from train.settings import (
    LoraSettings,
    OptimizerSettings,
    ParallelSettings,
    Subset,
    TrainSettings,
)
from train.sharding import SHARD, local, shard
from train.throughput import rate_of_device

_LIMIT_S = 180.0  # after which no further form is begun: all sections together have nine minutes
_ROOM = 0.8  # of the device's memory that what is kept may take; activations come on top


@dataclass(frozen=True, kw_only=True)
class _Form:
    """What is trained, of how many layers, and how."""

    lora: LoraSettings | None = None
    freeze: tuple[Part, ...] = ()
    num_layers: int = 28
    compiled: bool = False


_FORMS = {
    "lora": _Form(lora=LoraSettings()),
    "lora_compiled": _Form(lora=LoraSettings(), compiled=True),
    "what_draws": _Form(freeze=("und", "vit", "connector", "words")),
    "all_weights": _Form(num_layers=8),
}


def run(setup: Setup, record: Recorder) -> None:
    """Measure each form for which the device has the memory."""
    began = time.monotonic()
    full = models.full_config(setup)
    num_tokens = 400 if setup.tiny else 33_000
    attend_to, said = choose_attention(
        *("auto", full.transformer, setup.device, setup.dtype), room=num_tokens, ranks=Ranks()
    )
    record.note("attention", chosen=said or "blocks")
    with _one_rank(setup.device) as mesh:
        for name, form in _FORMS.items():
            if form.compiled and not setup.on_cuda:
                continue  # elsewhere compiling needs a compiler that may not be there
            if time.monotonic() - began > _LIMIT_S:
                record.note(name, skipped=f"not begun: {_LIMIT_S:g} s had passed")
                continue
            with record.attempt(name):
                _measure(name, form, full, num_tokens, attend_to, mesh, setup, record)


def _measure(
    name: str,
    form: _Form,
    full: BagelConfig,
    num_tokens: int,
    attend_to: AttendTo,
    mesh: DeviceMesh,
    setup: Setup,
    record: Recorder,
) -> None:
    layers = min(form.num_layers, full.transformer.num_layers)
    config = replace(full, transformer=replace(full.transformer, num_layers=layers))
    settings = TrainSettings(
        init="random",
        data=(Subset(path="random"),),
        out=Path("nowhere"),
        lora=form.lora,
        freeze=form.freeze,
        optimizer=OptimizerSettings(states="8bit", ema_decay=0.0),
    )
    with torch.device("meta"):
        model = Bagel(config)
    trained = trained_parameters(model, settings)
    keep_frozen_narrow(model, setup.dtype)
    optimizer = make_optimizers(trained, settings.optimizer, setup.dtype)
    kept = sum(kept_bytes(model, trained, optimizer, averaged=False, dtype=setup.dtype).values())
    if kept > _ROOM * memory_of(setup.device):
        record.note(name, skipped=f"a step keeps {gib(kept)} GiB, activations not counted")
        return
    if form.compiled:
        model.compile_experts()
    set_recompute(model, "full")
    objective = Objective(model, attend_to=attend_to)
    shard(objective, mesh, setup.dtype, ParallelSettings())
    _fill(model, setup)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = make_optimizers(parameters, settings.optimizer, setup.dtype)
    layout = packs.pack(setup, num_tokens)
    inputs, target = packs.inputs(layout, config, setup.dtype)
    counted = torch.ones(len(layout.velocity_rows), device=setup.device)
    pack = Pack(layout, inputs, target, ("random",) * len(layout.sample_lens), counted)
    supervised = Supervised.of(pack)

    def step() -> None:
        losses = forward_in(setup.dtype, objective, pack, sharded=True)
        ce, mse = mean_losses(losses, pack, supervised)
        (settings.ce_weight * ce + mse).backward()
        clip_gradients(parameters.values(), settings.optimizer.max_grad_norm)
        optimizer.step(settings.optimizer.lr)
        optimizer.zero_grad()

    reset_peak(setup)
    try:
        seconds = time_s(step, setup, repeats=3)
    except torch.OutOfMemoryError as error:
        record.note(name, skipped=str(error)[:200])
        return
    flops = train_flops(config, layout, PARTS if form.lora is not None else form.freeze)
    peak = rate_of_device(setup.device, setup.dtype)
    record.add(
        name,
        layout.num_tokens / seconds,
        "tokens/s",
        ms=1e3 * seconds,
        tokens=layout.num_tokens,
        layers=layers,
        tflop=flops / 1e12,
        tflop_per_s=flops / seconds / 1e12,
        peak_gib=peak_gib(setup),
        **({} if peak is None else {"mfu": flops / seconds / peak}),
    )


@torch.no_grad()
def _fill(model: Bagel, setup: Setup) -> None:
    """Give a sharded model memory and random weights."""
    model.to_empty(device=setup.device)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            local(parameter).normal_(std=0.02)
        else:
            local(parameter).fill_(float("norm" in name and name.endswith("weight")))
    model.init_positions()


@contextmanager
def _one_rank(device: torch.device) -> Iterator[DeviceMesh]:
    """This process as all ranks that there are."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store = dist.HashStore()  # type: ignore[attr-defined]  # not among what torch says it exports
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield init_device_mesh(device.type, (1,), mesh_dim_names=(SHARD,))
    finally:
        dist.destroy_process_group()
