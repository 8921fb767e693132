"""A player of all roles that needs no model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import tiny

from staged.loops.policy import Policy
from staged.protocol import write
from staged.roles import RoleError, StepRequest, TextPreview
from staged.trajectory import Inspection, Move, Sketch, TextStep, Trajectory

POLICY = Policy(max_rounds=2, max_refinements=1, max_attempts=2)


class Artist:
    """Plans, draws, inspects; how often it accepts is told by the seed of each step."""

    num_flow_steps = 10
    num_at_once = 2

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.released: list[str] = []
        self.breaks_on: str | None = None
        self.error: Exception = ZeroDivisionError("a mistake")
        self.while_drawing: Callable[[], object] = lambda: None

    def _note(self, kind: str, requests: Sequence[StepRequest]) -> None:
        prompts = [request.trajectory.prompt for request in requests]
        self.calls.append((kind, prompts))
        if self.breaks_on in prompts:
            raise self.error

    def choose(self, requests: Sequence[StepRequest]) -> list[tuple[Move, ...]]:
        self._note("choose", requests)
        texts = [
            tuple(m for m in request.moves if m not in ("stop", "sketch")) for request in requests
        ]
        return [
            text if request.seed % 3 else request.moves[:1] if request.moves[0] == "stop" else text
            for text, request in zip(texts, requests, strict=True)
        ]

    def write(
        self, requests: Sequence[StepRequest], on_text: TextPreview | None = None
    ) -> list[TextStep | RoleError]:
        self._note("write", requests)
        steps = [self._text(request) for request in requests]
        for row, step in enumerate(steps):
            if on_text is not None and not isinstance(step, RoleError):
                text = write(step)
                for end in range(1, len(text) + 1, 7):
                    on_text(row, text[:end])
        return steps

    def _text(self, request: StepRequest) -> TextStep | RoleError:
        if request.seed % 5 == 0:
            return RoleError("refusal")
        kind = request.moves[request.seed % len(request.moves)]
        if kind == "plan":
            return tiny.plan(f"{request.trajectory.prompt} {request.seed % 100}")
        if kind.startswith("refine"):
            return tiny.staged_trajectory().steps[2]  # type: ignore[return-value]
        verdict: Any = "accept" if request.seed % 2 else "revise"
        target: Any = kind.split()[1]
        return Inspection(target=target, verdict=verdict, critique=str(request.seed % 100))

    def draw(
        self, requests: Sequence[StepRequest], on_preview: object = None
    ) -> list[Sketch | RoleError]:
        self._note("draw", requests)
        assert len(requests) <= self.num_at_once
        self.while_drawing()
        drawn: list[Sketch | RoleError] = []
        for request in requests:
            reason = request.interrupt()
            sketch = replace(tiny.sketch(request.seed % 7), num_flow_steps=10)
            drawn.append(sketch if reason is None else RoleError(reason))
        return drawn

    def release(self, trajectory: Trajectory) -> None:
        self.released.append(trajectory.prompt)
