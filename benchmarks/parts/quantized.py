"""Section quantized: BAGEL-7B with random weights in int8 and in float8, against bfloat16.

What weights take, a flow evaluation at full size, text in 1 and 16 contexts, and how far velocities
and logits come to lie from those of bfloat16. Random weights have no outliers, so the distances are
those of rounding alone and say nothing of pictures. `tb_per_s` counts two bytes a weight for all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.parts import models, packs
from benchmarks.parts.arithmetic import flow_flops
from benchmarks.parts.generation import measure_flow, measure_text
from benchmarks.parts.harness import Recorder, Setup, reset_peak
from staged.engine.context import Context
from staged.engine.engine import Engine
from staged.model.flows import FlowSettings, Guidance
from staged.model.quantizations import Quantization
from staged.model.quantized import quantize_experts, require_quantization

_KINDS: tuple[Quantization, ...] = ("none", "int8", "float8")
_UNGUIDED = FlowSettings(num_flow_steps=8, guidance=Guidance(text_scale=1.0, image_scale=1.0))


def run(setup: Setup, record: Recorder) -> None:
    """Measure each kind in a model of its own; the random weights are the same."""
    exact: dict[str, Tensor] = {}
    for kind in _KINDS:
        try:
            require_quantization(kind, setup.device, setup.dtype)
        except ValueError as error:
            record.note(kind, skipped=str(error))
            continue
        with record.attempt(kind):
            found = _measure(kind, setup, record)
            for name, tensor in found.items():
                if name in exact:
                    distance = (tensor - exact[name]).norm() / exact[name].norm()
                    record.add(f"{kind}_{name}_error", float(distance), "of its size")
            exact = exact or found


def _measure(kind: Quantization, setup: Setup, record: Recorder) -> dict[str, Tensor]:
    model = models.build(models.full_config(setup), setup, setup.dtype)
    quantize_experts(model, kind)
    if setup.on_cuda:
        torch.cuda.empty_cache()
    engine = models.engine(model, setup, setup.dtype)
    kept = sum(tensor.nbytes for tensor in model.state_dict().values())
    record.add(f"{kind}_weights", kept / 2**30, "GiB")
    reset_peak(setup)
    side = engine.codec.sizes.latent_max
    num_tokens = engine.codec.grids(side, side).latent
    context = Context()
    [logits] = engine.append([context], [[packs.text_only(16 if setup.tiny else 64)]])
    flops = flow_flops(model.config.transformer, num_tokens[0] * num_tokens[1], context.num_tokens)
    contexts = (context, Context(), Context())
    with record.attempt(f"{kind}_flow"):
        measure_flow(f"{kind}_flow", engine, contexts, side, _UNGUIDED, flops, setup, record)
    for count in (1, 16):
        name = f"{kind}_decode_batch_{count}"
        with record.attempt(name):
            measure_text(name, engine, count, setup, record)
    record.note(f"{kind}_company", text_slots=engine.num_text_slots)
    return {"logits": logits.cpu(), "velocity": _one_step(engine, contexts, side)}


def _one_step(engine: Engine, contexts: tuple[Context, Context, Context], side: int) -> Tensor:
    """What one evaluation, from noise on, makes of an image."""
    settings = FlowSettings(num_flow_steps=1, guidance=_UNGUIDED.guidance)
    images = engine.begin(
        *([context] for context in contexts), sizes=[(side, side)], seeds=[0], settings=[settings]
    )
    noise = images[0].x_t.clone()
    engine.step(images)
    return (images[0].x_t - noise).float().cpu()
