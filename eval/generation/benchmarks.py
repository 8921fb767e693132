"""The benchmarks whose prompts can be drawn.

A new one is a function from the user's `--prompts` to a `Benchmark`, in a folder of its own, and a
row here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from eval.generation.benchmark import Benchmark
from eval.geneval import benchmark as geneval
from eval.geneval2 import benchmark as geneval2
from eval.wise import benchmark as wise

BENCHMARKS: Mapping[str, Callable[[str | None], Benchmark]] = {
    "geneval": partial(geneval.benchmark, variant="short"),
    "geneval-long": partial(geneval.benchmark, variant="long"),
    "geneval2": geneval2.benchmark,
    "wise-legacy": partial(wise.benchmark, version="legacy"),
    "wise-verified": partial(wise.benchmark, version="verified"),
}
"""By name: from `--prompts`, or None, to the benchmark."""
