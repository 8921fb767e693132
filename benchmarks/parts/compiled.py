"""Section compiled: drawing and training again, with the experts' pointwise parts fused.

What surrounds attention is bound by memory traffic; torch.compile fuses it. The parity of the two
is tested elsewhere; here only the gain is measured, against sections generation and layers.
"""

from __future__ import annotations

import time

from benchmarks.parts import generation, layers, models
from benchmarks.parts.harness import Recorder, Setup, Skip


def run(setup: Setup, record: Recorder) -> None:
    """Compile, then measure what the other two sections do.

    Raises:
        Skip: Not on CUDA: elsewhere compiling needs a compiler that may not be there.
    """
    if not setup.on_cuda:
        raise Skip("compiled kernels are measured on CUDA only")
    dtype = setup.dtype
    engine = models.engine(models.build(models.full_config(setup), setup, dtype), setup, dtype)
    engine.model.compile_experts()
    began = time.perf_counter()
    generation.measure_flows(engine, setup, record)
    record.add("with_compilation", time.perf_counter() - began, "s")
    del engine
    layers.measure(setup, record, compiled=True)
