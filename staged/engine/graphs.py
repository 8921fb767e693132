"""Calls of a network with fixed shapes as CUDA graphs: recorded once, replayed without launches.

A flow step of BAGEL-7B is thousands of kernels, and launching them takes a third of an H100's time.
While an image is on its way its contexts and shapes stay what they are, so that its second step is
recorded and all later ones are replayed: one launch each. The kernels and their order are those of
a plain step.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from staged.first_line import first_line

Network = Callable[[Tensor, Tensor], Tensor]
"""From (rows, Z) noised latents and their (rows,) times to (rows, Z) velocities."""

Record = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]
"""Runs some work, and returns what it made, and what does the same again in the same places."""

OFF: Final = "STAGED_CUDA_GRAPHS"
"""Environment variable; at 0 nothing is recorded."""

_FAR = 1e-2
"""Relative distance of a replay from a plain step at which it is another result; rounding in
bfloat16 stays below a thirtieth of that."""


class Graphs:
    """Makes networks replay their calls, as long as that works.

    The first recording of all is compared with a plain call; where it differs, or recording fails,
    that is told once and calls stay plain.
    """

    def __init__(self, record: Record | None) -> None:
        """Record in a way; None leaves all calls plain."""
        self.record, self.compared = record, False

    @classmethod
    def on(cls, device: torch.device) -> Graphs:
        """As a device records: CUDA's do, unless the environment forbids it; others do not."""
        if device.type != "cuda" or os.environ.get(OFF) == "0":
            return cls(None)
        # One pool for all: of two recordings only one runs at a time, and what they give is copied.
        pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

        def record(work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
            graph = torch.cuda.CUDAGraph()
            # Other threads may ask the device for memory meanwhile.
            with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
                made = work()
            return made, graph.replay

        return cls(record)

    def replaying(self, network: Network) -> Network:
        """The same network; its calls must have the same shapes, and whatever else it reads stays.

        What it reads besides may get other values, in the same places.
        """
        return network if self.record is None else _Replaying(network, self)

    def give_up(self, why: str) -> None:
        """Leave all calls plain from now on, and tell why."""
        self.record = None
        warnings.warn(f"flow steps are not recorded as CUDA graphs: {why}", stacklevel=2)


class _Replaying:
    def __init__(self, network: Network, graphs: Graphs) -> None:
        self._network, self._graphs = network, graphs
        self._num_calls = 0
        self._inputs: tuple[Tensor, Tensor] | None = None
        self._replay: Callable[[], None] | None = None

    def __call__(self, latents: Tensor, times: Tensor) -> Tensor:
        self._num_calls += 1
        # The first call is plain: libraries choose kernels and take memory then, which a recording
        # may not.
        if self._num_calls == 2:
            self._record(latents, times)
        if self._replay is None or self._inputs is None:
            return self._network(latents, times)
        for place, given in zip(self._inputs, (latents, times), strict=True):
            place.copy_(given)
        self._replay()
        return self._velocities.clone()  # the next replay writes there

    def _record(self, latents: Tensor, times: Tensor) -> None:
        graphs = self._graphs
        if graphs.record is None:
            return
        inputs = latents.clone(), times.clone()
        try:
            self._velocities, replay = graphs.record(lambda: self._network(*inputs))
        except torch.OutOfMemoryError:
            return  # an image of this size has no room for a recording beside it, others may
        except RuntimeError as error:
            graphs.give_up(first_line(error))
            return
        if not graphs.compared:
            replay()
            far = _distance(self._velocities, self._network(latents, times))
            if not far <= _FAR:
                graphs.give_up(f"a replay is {far:.2g} away from a plain step")
                return
            graphs.compared = True
        self._inputs, self._replay = inputs, replay


def _distance(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    apart = (found.float() - expected.float()).norm() / expected.float().norm().clamp(min=1e-30)
    return float(apart)
