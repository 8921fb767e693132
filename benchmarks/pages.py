"""Pages of the engine's cache on a CPU: work in pages, and in what else there is.

    python benchmarks/pages.py
    python benchmarks/pages.py --model 100m --repeats 5

Contexts of three rounds (a prompt; plan, picture, verdict each time) that share nothing. Ways:

    in_place   pages of a context lie side by side, and are read where they lie
    gathered   no two of them do, and each call gathers them: the worst case
    copied     blocks as they were read, joined in each call; a copy with room for each text written
               (the engine before it had pages)

Ways take turns, and the processor's time counts, so that a busy machine is unfair to none. A JSON
line for each kind of work says how many milliseconds each way takes (the median), and what they are
over those of `copied`. Exit code 0, or 1 where two ways differ in one bit.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # from a bare checkout
from benchmarks.parts import middling
from staged.allocator import keep_freed_memory
from staged.engine import context as contexts_module
from staged.engine.cache import CachedSequence, PagedCache
from staged.engine.context import Context
from staged.engine.decoding import Decoder
from staged.engine.engine import Engine
from staged.engine.pages import PageTable
from staged.engine.text_sampling import TextSampling
from staged.generate.role_choice import open_engine
from staged.model.flows import FlowSettings, Guidance

PLAN = "<ins>add a red circle</ins><des>a red circle above a blue star</des>"
VERDICT = "<insp>the circle is above the star, as asked</insp>"
REFERENCE = "copied"
Joined = list[Tensor]
GUIDED = FlowSettings(num_flow_steps=2, guidance=Guidance(interval=(0.0, 1.0)))


class Workload:
    """Contexts in one way of keeping them, and what is done with them."""

    def __init__(self, engine: Engine, way: str, num_contexts: int, num_tokens: int) -> None:
        """Read the contexts."""
        self.engine, self._num_tokens, self.blocks = engine, num_tokens, Blocks()
        side = engine.codec.sizes.latent_max
        self._size = (side, side)
        self._pictures = [
            np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
            for seed in range(3)
        ]
        self.way = self._kept(way)
        made = engine.new_cache(num_contexts * 12_000)
        self._others = scatter(made) if way == "gathered" else []
        self.cache = made
        with self.way():
            self.contexts = [self._read(number) for number in range(num_contexts)]

    def _read(self, number: int) -> Context:
        context = Context(self.cache)
        self.engine.append_text([context], [f"a photo of {number} stars"])
        for picture in self._pictures:
            self.engine.append_text([context], [PLAN])
            self.engine.append_images([context], [picture])
            self.engine.append_text([context], [VERDICT])
        return context

    def read(self) -> list[Tensor]:
        """Read a plan and a picture after each context."""
        forks = [context.fork() for context in self.contexts]
        self.engine.append_text(forks, [PLAN] * len(forks))
        return self.engine.append_images(forks, self._pictures[:1] * len(forks))

    def write(self) -> list[Tensor]:
        """Write after each."""
        sampling = TextSampling(max_tokens=self._num_tokens, temperature=1.0)
        written = self.engine.write(self.contexts, [sampling] * len(self.contexts))
        return [torch.tensor(block.ids) for block in written]

    def draw(self) -> list[Tensor]:
        """Draw in the first, with all three branches of guidance."""
        branches = [self.contexts[:1], self.contexts[1:2], self.contexts[2:3]]
        drawn = self.engine.draw(*branches, sizes=[self._size], seeds=[0], settings=[GUIDED])
        return [drawing.latents for drawing in drawn]

    def _kept(self, way: str) -> Callable[[], Any]:
        return self.blocks.instead if way == "copied" else ExitStack


class Blocks:
    """The alternative: what was read together stays together, in tensors of its own."""

    def __init__(self) -> None:
        """Begin with none."""
        # By pages, tokens and layer: keys and values, cut into blocks. The same work is done again
        # and again, so the same pages hold the same.
        self._parts: dict[tuple[tuple[int, ...], int, int], list[Joined]] = {}

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Keep and join blocks while this lasts."""
        row = Decoder._row

        def joined(
            chunk: contexts_module._Chunk, layer: int, key: Tensor, value: Tensor
        ) -> tuple[Tensor, Tensor]:
            if chunk._keep:  # what was read is a block as it is; those before it are joined to it
                assert chunk._sequence is not None
                chunk._sequence.write(layer, chunk._slots, key, value)
            if chunk._sequence is None or not chunk._num_cached:
                return key, value
            parts = self._parts_of(chunk._sequence, layer, chunk._num_cached)
            joined = [
                torch.cat([*some, new]) for some, new in zip(parts, (key, value), strict=True)
            ]
            return joined[0], joined[1]

        def copied(decoder: Decoder, number: int, context: Context, how: TextSampling) -> Any:
            room = context.num_tokens + how.max_tokens + 1
            cache = decoder.cache(room + 1, page_size=room + 1)
            if (sequence := context.sequence()) is None:
                return row(decoder, number, context, how)
            copy = Context(cache)
            copy.grow(context.num_tokens)
            copy.position, copy.has_images = context.position, context.has_images
            target = copy.sequence()
            assert target is not None
            slots = target.slots(0, context.num_tokens)
            for layer in range(cache.kept.shape[1]):
                target.write(layer, slots, *sequence.read(layer))
            return row(decoder, number, copy, how)

        with (
            patch.object(contexts_module._Chunk, "keys", joined),
            patch.object(Decoder, "_row", copied),
        ):
            yield

    def _parts_of(self, sequence: CachedSequence, layer: int, count: int) -> list[Joined]:
        """Blocks of a hundred tokens: about as many as were read."""
        key = tuple(sequence.pages), count, layer
        if key not in self._parts:
            self._parts[key] = [
                [part.clone() for part in both.split(100)] for both in sequence.read(layer, count)
            ]
        return self._parts[key]


def scatter(cache: PagedCache) -> list[PageTable]:
    """Take every other page, so that no two free ones lie side by side."""
    tables = []
    for _ in range(cache.allocator.num_pages):
        tables.append(cache.table())
        tables[-1].grow(1)
    tables.sort(key=lambda table: table.pages[0])
    for table in tables[::2]:
        table.release()
    return tables[1::2]


def measure(loads: dict[str, Workload], kind: str, repeats: int) -> dict[str, float]:
    """Milliseconds of each way for a kind of work.

    Raises:
        ArithmeticError: Ways differ.
    """
    seconds: dict[str, list[float]] = {way: [] for way in loads}
    for turn in range(repeats + 1):
        results: dict[str, list[Tensor]] = {}
        for way, load in loads.items():
            with load.way():
                began = time.process_time()  # what else runs does not count
                results[way] = getattr(load, kind)()
                took = time.process_time() - began
            if turn:  # the first prepares kernels
                seconds[way].append(took)
        for way, found in results.items():
            pairs = zip(found, results[REFERENCE], strict=True)
            if not all(torch.equal(one, other) for one, other in pairs):
                raise ArithmeticError(f"{kind}: {way} and {REFERENCE} differ")
    return {way: 1e3 * median(values) for way, values in seconds.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every kind of work in every way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--model", choices=("miniature", "100m"), default="miniature", help="whose contexts")
    add("--num-contexts", type=int, default=8, help="side by side (default: %(default)s)")
    add("--num-tokens", type=int, default=32, help="of a text written (default: %(default)s)")
    add("--repeats", type=int, default=9, help="of each way (default: %(default)s)")
    add("--threads", type=int, default=1, help="of torch")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the model")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as commands do
    if options.model == "100m":
        engine = middling.engine(getattr(torch, options.dtype))
    else:
        engine = open_engine("miniature:staged", device="cpu", dtype=options.dtype)
    ways = ("in_place", "gathered", "copied")
    loads = {w: Workload(engine, w, options.num_contexts, options.num_tokens) for w in ways}
    facts = {
        "model": options.model,
        "dtype": options.dtype,
        "contexts": options.num_contexts,
        "context_tokens": loads["in_place"].contexts[0].num_tokens,
    }
    for kind in ("read", "write", "draw"):
        try:
            found = measure(loads, kind, options.repeats)
        except ArithmeticError as error:
            print(error, file=sys.stderr)
            return 1
        told = {
            **facts,
            "work": kind,
            "milliseconds": {way: round(value, 1) for way, value in found.items()},
            "over_copied": {w: round(value / found[REFERENCE], 3) for w, value in found.items()},
        }
        print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
