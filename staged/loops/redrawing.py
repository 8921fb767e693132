"""Sketches that are drawn again where an inspector refuses them, before they count.

A refusal can be answered in two ways: correct the picture, or draw another. Corrections draw onto
what is wrong and hand their own faults on; another drawing of the same plan begins from the last
picture that was accepted. Where first drawings are right more often than corrections, it is the
better use of flow steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from staged.loops.rollout import step_seed
from staged.roles import (
    BatchedSketcher,
    BatchedWriter,
    Preview,
    Remembering,
    RoleError,
    StepRequest,
)
from staged.trajectory import Inspection, Sketch, Trajectory


class RedrawingSketcher:
    """Draws, shows the inspector, and draws again from other noise what it refuses.

    What is given back is the first sketch that was not refused, or the last; its `num_flow_steps`
    count the refused ones too, so that limits and comparisons at equal flow steps hold. Whether a
    sketch is drawn again depends on nothing but its own trajectory and seed.
    """

    def __init__(
        self, sketcher: BatchedSketcher, inspector: BatchedWriter, *, max_redraws: int
    ) -> None:
        """Put an inspector behind a sketcher.

        Args:
            sketcher: Draws.
            inspector: Inspects sketches. Where it fails, the sketch stands.
            max_redraws: Times that a sketch is drawn again, at most; 1 or more.
        """
        self._sketcher, self._inspector = sketcher, inspector
        self._max_redraws = max_redraws

    @property
    def num_flow_steps(self) -> int:
        """Network evaluations a sketch, at most."""
        return self._sketcher.num_flow_steps * (1 + self._max_redraws)

    @property
    def num_at_once(self) -> int:
        """Sketches that gain from one call."""
        return self._sketcher.num_at_once

    def release(self, trajectory: Trajectory) -> None:
        """Forget what was read for this trajectory alone; see `staged.roles.Remembering`."""
        if isinstance(self._sketcher, Remembering):
            self._sketcher.release(trajectory)

    def draw(
        self, requests: Sequence[StepRequest], on_preview: Preview | None = None
    ) -> list[Sketch | RoleError]:
        """Draw one sketch for each request; see `staged.roles.BatchedSketcher`."""
        shown = list[tuple[StepRequest, Sketch]]()
        results: Sequence[Sketch | RoleError] = ()
        try:
            results = self._draw(requests, on_preview, shown)
            return list(results)
        finally:
            # From these no trajectory goes on, so nobody else would let go of what was read of
            # them, and of all before.
            if isinstance(self._inspector, Remembering):
                for request, sketch in shown:
                    if all(sketch is not result for result in results):
                        self._inspector.release(_shown(request, sketch))

    def _draw(
        self,
        requests: Sequence[StepRequest],
        on_preview: Preview | None,
        shown: list[tuple[StepRequest, Sketch]],
    ) -> list[Sketch | RoleError]:
        """Draw, and add to what was shown to the inspector."""
        results = self._sketcher.draw(requests, on_preview)
        rows = list(range(len(requests)))
        for turn in range(1, self._max_redraws + 1):
            rows = self._refused(requests, results, rows, shown)
            if not rows:
                break
            again = [
                replace(requests[row], seed=step_seed(requests[row].seed, "again", turn))
                for row in rows
            ]
            for row, new in zip(rows, self._draw_rows(again, rows, on_preview), strict=True):
                old = results[row]
                assert isinstance(old, Sketch)
                if isinstance(new, Sketch):
                    spent = old.num_flow_steps + new.num_flow_steps
                    results[row] = replace(new, num_flow_steps=spent)
                else:
                    results[row] = new
        return results

    def _draw_rows(
        self, requests: Sequence[StepRequest], rows: Sequence[int], on_preview: Preview | None
    ) -> list[Sketch | RoleError]:
        if on_preview is None:
            return self._sketcher.draw(requests)
        show = on_preview
        return self._sketcher.draw(
            requests, lambda place, step, pixels: show(rows[place], step, pixels)
        )

    def _refused(
        self,
        requests: Sequence[StepRequest],
        results: Sequence[Sketch | RoleError],
        rows: Sequence[int],
        shown: list[tuple[StepRequest, Sketch]],
    ) -> list[int]:
        """Rows whose sketch the inspector wants otherwise."""
        drawn = [(row, result) for row in rows if isinstance(result := results[row], Sketch)]
        shown += [(requests[row], sketch) for row, sketch in drawn]
        looks = [
            StepRequest(
                trajectory=_shown(requests[row], sketch),
                moves=("inspect sketch",),
                seed=requests[row].seed,
                interrupt=requests[row].interrupt,
            )
            for row, sketch in drawn
        ]
        said = self._inspector.write(looks) if looks else []
        return [
            row
            for (row, _), verdict in zip(drawn, said, strict=True)
            if isinstance(verdict, Inspection) and verdict.verdict == "revise"
        ]


def _shown(request: StepRequest, sketch: Sketch) -> Trajectory:
    """What the inspector is shown of a sketch."""
    return request.trajectory.extend(sketch)
