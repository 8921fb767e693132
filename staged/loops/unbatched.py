"""Players of single roles, asked one trajectory after another, where a loop asks for many."""

from collections.abc import Sequence

from staged.roles import Director, Inspector, Planner, Refiner, RoleError, StepRequest, TextPreview
from staged.trajectory import Move, Target, TextStep


class Unbatched:
    """A `BatchedDirector` and `BatchedWriter` made of players of single roles."""

    def __init__(
        self,
        *,
        director: Director | None = None,
        planner: Planner | None = None,
        inspector: Inspector | None = None,
        refiner: Refiner | None = None,
    ) -> None:
        """Take the players of the roles that will be asked for."""
        self._director, self._planner = director, planner
        self._inspector, self._refiner = inspector, refiner

    def choose(self, requests: Sequence[StepRequest]) -> list[tuple[Move, ...] | RoleError]:
        """Ask the director; one that wants what the loop's limits forbid gets a stop."""
        if self._director is None:
            raise ValueError("nobody directs; give Unbatched a director")
        chosen: list[tuple[Move, ...] | RoleError] = []
        for request in requests:
            try:
                move = self._director.next_move(request.trajectory)
            except RoleError as error:
                chosen.append(error)
                continue
            if move not in request.moves:
                move = "stop" if "stop" in request.moves else request.moves[0]
            chosen.append((move,))
        return chosen

    def write(
        self, requests: Sequence[StepRequest], on_text: TextPreview | None = None
    ) -> list[TextStep | RoleError]:
        """Write the first of each request's moves; a text comes at once."""
        results: list[TextStep | RoleError] = []
        for request in requests:
            try:
                results.append(self._step(request))
            except RoleError as error:
                results.append(error)
        return results

    def _step(self, request: StepRequest) -> TextStep:
        move = request.moves[0]
        match move:
            case "plan" if self._planner is not None:
                return self._planner.plan(request.trajectory, seed=request.seed)
            case "inspect plan" | "inspect sketch" if self._inspector is not None:
                target: Target = "plan" if move == "inspect plan" else "sketch"
                return self._inspector.inspect(request.trajectory, target, seed=request.seed)
            case "refine plan" | "refine sketch" if self._refiner is not None:
                return self._refiner.refine(request.trajectory, seed=request.seed)
        raise ValueError(f"nobody plays the role of {move!r}; give Unbatched that player")
