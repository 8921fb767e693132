"""The whole loop on a CPU: requests that plan, sketch and inspect, by the engine and without it.

    python benchmarks/engine.py
    python benchmarks/engine.py --requests 1 4 16 --threads 2
    python benchmarks/engine.py --model 100m --rounds 1 --flow-steps 4

Requests of the shipped miniature, asked for at once, that differ in size, flow steps and guidance;
or of a hundred million random weights, whose choices and texts are dictated (`parts/dictated.py`)
and whose pictures are of 256 latent tokens instead of 36. Ways:

    plain      nothing is kept: what a token or a flow step attends to is read again for it, one
               request after another. (Of a text that is being written, the tokens so far are kept;
               without that it would be slower still.) For one request only
    unbatched  what was read is kept, one request after another
    engine     all side by side, as `staged generate` and `staged serve` do

Each way draws the same pictures to the bit, or the exit code is 1. The processor's time counts, so
that a busy machine is unfair to none: requests a minute of it, the time from the beginning to the
end of each request (the median and the longest), flow steps and written tokens a second of the
whole, and what the engine was at: reading (append), writing, drawing (step). Memory is the most
that the process had resident during a way, weights among it. A JSON line for each number of
requests.
"""

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest.mock import patch

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # from a bare checkout
from benchmarks.parts import middling
from benchmarks.parts.dictated import dictated
from benchmarks.parts.resident import ResidentPeak
from staged.allocator import keep_freed_memory
from staged.engine.context import Context
from staged.engine.decoding import Decoder
from staged.engine.engine import Engine
from staged.engine.sampling import TextBlock
from staged.engine.velocity import GuidedImage, Velocities
from staged.generate.model import DrawingModel
from staged.generate.settings import DrawSettings
from staged.loops.rollouts import Rollouts
from staged.model.bagel import Inputs
from staged.model.layout import Segment
from staged.trajectory import Trajectory

PROMPTS: Final = (
    "a photo of a red circle above a blue star",
    "a photo of three hearts",
    "a photo of a green ring",
    "a photo of a yellow cross and a white drop",
)
WAYS: Final = ("plain", "unbatched", "engine")
Read = tuple[Sequence[Segment], Inputs]


def kinds(side: int) -> tuple[dict[str, Any], ...]:
    """How requests differ, in turns, where the largest picture has a side of so many pixels."""
    narrow = 2 * side // 3 // 8 * 8  # whole tokens of either model
    return (
        {},
        {"num_flow_steps": 12},
        {"width": narrow, "height": side, "image_guidance_scale": 1.0},
        {"num_flow_steps": 16, "guidance_scale": 3.0},
    )


class NothingKept:
    """Contexts that are read again whenever anything attends to them."""

    def __init__(self, engine: Engine) -> None:
        """Read again with an engine."""
        self._engine, self._append = engine, Engine._append

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Keep nothing while this lasts. What was read before must not be used."""
        fork, velocities, logits = Context.fork, Velocities.__call__, Decoder._logits

        def append(
            engine: Engine, context: Context, segments: Sequence[Segment], inputs: Inputs
        ) -> Tensor:
            self._again(context)
            _told(context).append((segments, inputs))
            return self._append(engine, context, segments, inputs)

        def forked(context: Context) -> Context:
            other = fork(context)
            _told(other).extend(_told(context))
            return other

        def velocities_at(
            made: Velocities,
            images: Sequence[GuidedImage],
            x_t: Sequence[Tensor],
            times: Sequence[float],
        ) -> list[Tensor]:
            for image, t in zip(images, times, strict=True):
                for branch in image.branches[: image.num_branches(t)]:
                    self._again(branch)
            return velocities(made, images, x_t, times)

        def next_logits(decoder: Decoder, rows: Sequence[Any], slots: int) -> Tensor:
            for row in rows:
                self._again(row.context)
            return logits(decoder, rows, slots)

        with (
            patch.object(Engine, "_append", append),
            patch.object(Context, "fork", forked),
            patch.object(Velocities, "__call__", velocities_at),
            patch.object(Decoder, "_logits", next_logits),
        ):
            yield

    def _again(self, context: Context) -> None:
        scratch = Context(self._engine.cache)
        for segments, inputs in _told(context):
            self._append(self._engine, scratch, segments, inputs)
        scratch.release()


def _told(context: Context) -> list[Read]:
    found: list[Read] = vars(context).setdefault("told", [])
    return found


class Requests:
    """Some requests, and the model that draws them."""

    def __init__(self, origin: DrawingModel, count: int, **more: Any) -> None:
        """Ask for a number of pictures; `more` settings are the same for all."""
        self._origin, self._count = origin, count
        self._models = [
            origin.like(_settings(origin.settings.checkpoint, **{**kind, **more}))
            for kind in kinds(origin.sizes.latent_max)
        ]

    def run(self, together: int) -> "Run":
        """Draw all, so many side by side."""
        for model in self._models:
            assert model.roles  # made, and the weights read
        run, ended = Run(), dict[int, Trajectory]()
        rollouts = Rollouts(room=together)
        with run.timed():
            self._advance(run, rollouts, ended)
        run.seconds, run.peak_gib = time.process_time() - run.began, run.memory.gib()
        run.trajectories = [ended[number] for number in range(self._count)]
        return run

    def _advance(self, run: "Run", rollouts: Rollouts, ended: dict[int, Trajectory]) -> None:
        begun = 0
        while begun < self._count or rollouts:
            while begun < self._count and rollouts.room:
                self._join(rollouts, begun)
                begun += 1
            for number, trajectory in rollouts.advance():
                ended[number] = trajectory
                run.latencies.append(time.process_time() - run.began)
            run.peak_tokens = max(run.peak_tokens, self._origin.num_cached_tokens())

    def _join(self, rollouts: Rollouts, number: int) -> None:
        model = self._models[number % len(self._models)]
        prompt = PROMPTS[number // 2 % len(PROMPTS)]
        rollouts.join(model.start(prompt), seed=number, roles=model.roles, policy=model.policy)


class Run:
    """What one way did.

    Attributes:
        began: Processor's time at the beginning.
        seconds: Of the processor, in all.
        latencies: From the beginning to the end of each request.
        trajectories: In the order of the requests.
        written_tokens: Of all texts, also of those that did not parse.
        peak_tokens: Tokens of cache, at most.
        memory: Of the process while this goes on.
        peak_gib: The most of it; None where the system does not tell.
    """

    def __init__(self) -> None:
        """Begin now."""
        self.memory = ResidentPeak()
        self.peak_gib: float | None = None
        self.began, self.seconds = time.process_time(), 0.0
        self.latencies: list[float] = []
        self.trajectories: list[Trajectory] = []
        self.written_tokens = self.peak_tokens = 0
        self._spent: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """See what the engine is at while this lasts."""
        with ExitStack() as stack:
            stack.enter_context(patch.object(Engine, "write", self._counter()))
            for name in ("append", "write", "step"):
                stack.enter_context(patch.object(Engine, name, self._timer(name)))
            yield

    def _counter(self) -> Callable[..., list[TextBlock]]:
        write = Engine.write

        def counted(*given: Any, **more: Any) -> list[TextBlock]:
            blocks = write(*given, **more)
            self.written_tokens += sum(len(block.ids) for block in blocks)
            return blocks

        return counted

    def _timer(self, name: str) -> Callable[..., Any]:
        call: Callable[..., Any] = getattr(Engine, name)

        def timed(*given: Any, **more: Any) -> Any:
            began = time.process_time()
            try:
                return call(*given, **more)
            finally:
                self._spent[name] += time.process_time() - began

        return timed

    def figures(self) -> dict[str, float | None]:
        """Say how fast it was."""
        steps = Counter(type(s).__name__ for t in self.trajectories for s in t.steps)
        return {
            "requests_a_minute": round(60 * len(self.trajectories) / self.seconds, 2),
            "median_s": round(median(self.latencies), 2),
            "longest_s": round(max(self.latencies), 2),
            "flow_steps_a_second": round(
                sum(t.num_flow_steps for t in self.trajectories) / self.seconds, 2
            ),
            "tokens_a_second": round(self.written_tokens / self.seconds, 2),
            "texts": steps["Plan"] + steps["Inspection"] + steps["Refinement"],
            "peak_cached_tokens": self.peak_tokens,
            "peak_gib": None if self.peak_gib is None else round(self.peak_gib, 3),
            **{f"share_of_{n}": round(s / self.seconds, 2) for n, s in self._spent.items()},
        }


def measure(requests: Requests, count: int, engine: Engine) -> dict[str, Any]:
    """Draw some requests in every way.

    Raises:
        ArithmeticError: Ways differ.
    """
    runs = dict[str, Run]()
    for way in WAYS if count == 1 else WAYS[1:]:
        # Readings are forgotten as trajectories end, so each way begins with nothing.
        kept = NothingKept(engine).instead() if way == "plain" else nullcontext()
        with kept:
            runs[way] = requests.run(count if way == "engine" else 1)
    for way, run in runs.items():
        steps = [trajectory.steps for trajectory in run.trajectories]
        if steps != [trajectory.steps for trajectory in runs["engine"].trajectories]:
            raise ArithmeticError(f"{count} requests: {way} and engine differ")
    ratio = {
        f"engine_over_{way}": round(run.seconds / runs["engine"].seconds, 2)
        for way, run in runs.items()
        if way != "engine"
    }
    return {"requests": count, **{way: run.figures() for way, run in runs.items()}, **ratio}


def _settings(checkpoint: str, **more: Any) -> DrawSettings:
    settings: dict[str, Any] = {"max_refinements": 1, **more}
    return DrawSettings(checkpoint=checkpoint, inspect_sketch="always", device="cpu", **settings)


@contextmanager
def opened(model: str, dtype: str) -> Iterator[DrawingModel]:
    """Load a model; while this lasts, what a random one says is dictated."""
    with ExitStack() as stack:
        checkpoint = "miniature:staged"
        if model == "100m":
            folder = Path(stack.enter_context(TemporaryDirectory()), model)
            checkpoint = str(middling.save(folder))
            stack.enter_context(dictated())
        origin = DrawingModel(_settings(checkpoint, dtype=dtype))
        assert origin.roles  # made, and the weights read
        yield origin


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every number of requests."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add: Callable[..., Any] = parser.add_argument
    add("--model", choices=("miniature", "100m"), default="miniature", help="that draws")
    add("--requests", type=int, nargs="+", default=[1, 4, 16], help="asked for at once")
    add("--threads", type=int, default=1, help="of torch")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the model")
    add("--rounds", type=int, default=2, help="of each request, at most")
    add("--flow-steps", type=int, help="of every sketch, to try it out")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as commands do
    same = {"max_rounds": options.rounds}
    if options.flow_steps is not None:
        same["num_flow_steps"] = options.flow_steps
    facts = {"model": options.model, "dtype": options.dtype, "threads": options.threads, **same}
    with opened(options.model, options.dtype) as origin:
        Requests(origin, 1, **same).run(1)  # prepares kernels
        for count in options.requests:
            try:
                found = measure(Requests(origin, count, **same), count, origin.engine)
            except ArithmeticError as error:
                print(error, file=sys.stderr)
                return 1
            print(json.dumps({**facts, **found}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
