"""Players of single roles, asked one trajectory after another, where a loop asks for many."""

from collections.abc import Sequence

from staged.roles import Ask, Director, Inspector, Planner, Refiner, RoleError
from staged.trajectory import Move, Target, TextStep


class OneByOne:
    """A `Chooser` and `Writer` made of players of single roles."""

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

    def choose(self, asks: Sequence[Ask]) -> list[tuple[Move, ...] | RoleError]:
        """Ask the director; one that wants what the loop's limits forbid gets a stop."""
        if self._director is None:
            raise ValueError("nobody directs; give OneByOne a director")
        chosen: list[tuple[Move, ...] | RoleError] = []
        for ask in asks:
            try:
                move = self._director.next_move(ask.trajectory)
            except RoleError as error:
                chosen.append(error)
                continue
            if move not in ask.moves:
                move = "stop" if "stop" in ask.moves else ask.moves[0]
            chosen.append((move,))
        return chosen

    def write(self, asks: Sequence[Ask]) -> list[TextStep | RoleError]:
        """Write the first of each ask's moves."""
        results: list[TextStep | RoleError] = []
        for ask in asks:
            try:
                results.append(self._step(ask))
            except RoleError as error:
                results.append(error)
        return results

    def _step(self, ask: Ask) -> TextStep:
        move = ask.moves[0]
        match move:
            case "plan" if self._planner is not None:
                return self._planner.plan(ask.trajectory, seed=ask.seed)
            case "inspect plan" | "inspect sketch" if self._inspector is not None:
                target: Target = "plan" if move == "inspect plan" else "sketch"
                return self._inspector.inspect(ask.trajectory, target, seed=ask.seed)
            case "refine plan" | "refine sketch" if self._refiner is not None:
                return self._refiner.refine(ask.trajectory, seed=ask.seed)
        raise ValueError(f"nobody plays the role of {move!r}; give OneByOne that player")
