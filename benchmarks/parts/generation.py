"""Section generation: BAGEL-7B with random weights draws and writes through the engine.

Drawing is bound by arithmetic, writing by reading the und expert's weights; both are set against
what the mathematics asks for. The autoencoder is timed apart.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import replace
from itertools import pairwise
from statistics import median

import torch

from benchmarks.parts import models, packs
from benchmarks.parts.arithmetic import decode_bytes, flow_flops
from benchmarks.parts.harness import (
    Marks,
    Recorder,
    Setup,
    peak_gib,
    reset_peak,
    synchronize,
    time_s,
)
from staged.engine.context import Context
from staged.engine.engine import Engine
from staged.engine.text_sampling import TextSampling
from staged.model.bagel import Inputs
from staged.model.flows import FlowSettings, Guidance

_UNGUIDED = Guidance(text_scale=1.0, image_scale=1.0)
_ALWAYS = Guidance(interval=(0.0, 1.0))


def run(setup: Setup, record: Recorder) -> None:
    """Build the model, then draw and write."""
    reset_peak(setup)
    began = time.perf_counter()
    engine = models.engine(
        models.build(models.full_config(setup), setup, setup.dtype), setup, setup.dtype
    )
    synchronize(setup)
    parameters = sum(p.numel() for p in engine.model.parameters())
    record.add("build", time.perf_counter() - began, "s", parameters=parameters)
    record.add("weights_memory", peak_gib(setup), "GiB")
    measure_flows(engine, setup, record)
    for count in (1, 16):
        name = f"decode_batch_{count}"
        with record.attempt(name):
            measure_text(name, engine, count, setup, record)
    side = engine.codec.sizes.latent_max
    del engine
    _measure_autoencoder(setup, side, record)


def measure_flows(engine: Engine, setup: Setup, record: Recorder) -> None:
    """Evaluations with and without guidance and context, then two whole images."""
    side = engine.codec.sizes.latent_max
    grid = engine.codec.grids(side, side).latent
    prompt, nothing = Context(), Context()
    engine.append([prompt], [[packs.text_only(16 if setup.tiny else 64)]])
    drawing = (prompt, nothing, nothing)
    editing = _context_with_image(engine, setup, grid, record)
    # Kernel by kernel, as where a model is cut among ranks: what replayed graphs are set against.
    launching = Engine(engine.model, engine.codec, engine.tokenizer, shares_calls=False)
    for name, drawer, contexts, guidance, branches in (
        ("flow_unguided", engine, drawing, _UNGUIDED, 1),
        ("flow_unguided_launched", launching, drawing, _UNGUIDED, 1),
        ("flow_guided", engine, drawing, _ALWAYS, 2),
        ("flow_unguided_6k", engine, editing, _UNGUIDED, 1),
        ("flow_guided_6k", engine, editing, _ALWAYS, 3),
        ("flow_guided_6k_launched", launching, editing, _ALWAYS, 3),
    ):
        flops = sum(
            flow_flops(engine.model.config.transformer, grid[0] * grid[1], context.num_tokens)
            for context in contexts[:branches]
        )
        settings = FlowSettings(num_flow_steps=8, guidance=guidance)
        with record.attempt(name):
            measure_flow(name, drawer, contexts, side, settings, flops, setup, record)
    record.add("steps_replayed", float(engine.graphs.compared), "of 1")
    for name, contexts in (("text_to_image", drawing), ("edit_6k", editing)):
        with record.attempt(name):
            _measure_image(name, engine, contexts, side, setup, record)


def _context_with_image(
    engine: Engine, setup: Setup, grid: tuple[int, int], record: Recorder
) -> tuple[Context, Context, Context]:
    """About 6,000 tokens: words, a finished image's VAE copy, a plan; and the two without."""
    config = engine.model.config
    latents = torch.randn(grid[0] * grid[1], config.latent_token_dim, device=setup.device)
    image = Inputs(
        latents.to(setup.dtype),
        torch.zeros(len(latents), device=setup.device),
        torch.zeros(0, config.vision.patch_dim, device=setup.device, dtype=setup.dtype),
    )
    num_words = 20 if setup.tiny else 1000
    words, picture = packs.text_only(num_words), packs.clean_image(grid)

    def read() -> tuple[Context, Context, Context]:
        full, texts_only = Context(), Context()
        engine.append([full, texts_only], [[words], [words]])
        engine.append([full], [[picture]], [image])
        without_text = full.fork()
        engine.append([full, texts_only], [[words], [words]])
        return full, without_text, texts_only

    seconds = time_s(read, setup, warmup=1, repeats=3)
    contexts = read()
    tokens = len(latents) + 2 + 4 * num_words  # words twice, in both of two contexts
    record.add("read", tokens / seconds, "tokens/s", tokens=tokens, seconds=seconds)
    return contexts


def measure_flow(
    name: str,
    engine: Engine,
    contexts: tuple[Context, Context, Context],
    side: int,
    settings: FlowSettings,
    flops: int,
    setup: Setup,
    record: Recorder,
) -> None:
    """One evaluation of all branches, between a step and the next."""
    reset_peak(setup)
    marks = Marks(setup)
    engine.draw(
        *([context] for context in contexts),
        sizes=[(side, side)],
        seeds=[0],
        settings=[settings],
        on_step=lambda row, step, estimate: marks.mark(),
    )
    seconds = median(marks.intervals()[1:])
    record.add(
        name,
        1e3 * seconds,
        "ms",
        tflop=flops / 1e12,
        tflop_per_s=flops / seconds / 1e12,
        context_tokens=contexts[0].num_tokens,
        side_px=side,
        peak_gib=peak_gib(setup),
    )


def _measure_image(
    name: str,
    engine: Engine,
    contexts: tuple[Context, Context, Context],
    side: int,
    setup: Setup,
    record: Recorder,
) -> None:
    """A whole image with the published settings: 50 grid points, guidance on (0.4, 1]."""
    settings = FlowSettings(num_flow_steps=4 if setup.tiny else 49)
    synchronize(setup)
    began = time.perf_counter()
    engine.draw(
        *([context] for context in contexts), sizes=[(side, side)], seeds=[0], settings=[settings]
    )
    synchronize(setup)
    seconds = time.perf_counter() - began
    record.add(name, seconds, "s", num_flow_steps=settings.num_flow_steps, autoencoder="stand-in")


def measure_text(name: str, engine: Engine, count: int, setup: Setup, record: Recorder) -> None:
    """Greedy decoding in `count` contexts at once."""
    reset_peak(setup)
    num_context = 32 if setup.tiny else 1024
    contexts = [Context() for _ in range(count)]
    # Different words: equal contexts would write the same and tell nothing of the choices.
    blocks = [[packs.text_only(num_context - index)] for index in range(count)]
    engine.append(contexts, blocks)
    sampling = TextSampling(max_tokens=8 if setup.tiny else 96)
    moments: list[float] = []

    def on_token(row: int, token: int) -> None:
        if row == 0:  # the token is on the host, so the device is done with it
            moments.append(time.perf_counter())

    for _ in range(2):
        moments.clear()
        written = engine.write(contexts, [sampling] * count, on_token)
    gaps = [end - start for start, end in pairwise(moments)]
    if not gaps:
        raise ValueError("the random model closed its text at once; change its seed")
    seconds = median(gaps)
    needed = decode_bytes(engine.model.config.transformer, [c.num_tokens for c in contexts])
    record.add(
        name,
        count / seconds,
        "tokens/s",
        ms_per_step=1e3 * seconds,
        tb_per_s=needed / seconds / 1e12,
        context_tokens=num_context,
        written=[len(block.ids) for block in written],
        peak_gib=peak_gib(setup),
    )


def _measure_autoencoder(setup: Setup, side: int, record: Recorder) -> None:
    if importlib.util.find_spec("diffusers") is None:
        record.note("autoencoder", skipped="diffusers is not installed")
        return
    from staged.model.autoencoder import Autoencoder

    config = models.full_config(setup).autoencoder
    if setup.tiny:
        config = replace(config, channels=32, multipliers=(1, 1, 1, 1), num_blocks=1)
    with torch.device(setup.device):
        autoencoder = Autoencoder(config).to(setup.dtype).eval()
    picture = torch.rand(1, 3, side, side, device=setup.device, dtype=setup.dtype) * 2 - 1
    reset_peak(setup)
    with torch.inference_mode():
        latents = autoencoder.encode(picture)
        encode_s = time_s(lambda: autoencoder.encode(picture), setup)
        decode_s = time_s(lambda: autoencoder.decode(latents), setup)
    record.add("autoencoder_encode", 1e3 * encode_s, "ms", side_px=side)
    record.add("autoencoder_decode", 1e3 * decode_s, "ms", side_px=side, peak_gib=peak_gib(setup))
