"""Who plays which role of a loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

from staged.roles import BatchedDirector, BatchedSketcher, BatchedWriter, Remembering
from staged.trajectory import Move, Trajectory


class _AllRoles(BatchedDirector, BatchedWriter, BatchedSketcher, Protocol):
    """A player of all roles."""


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Who plays which role.

    Attributes:
        director: Decides what comes next.
        planner: Writes plans, thoughts and answers.
        sketcher: Draws.
        inspector: Writes inspections.
        refiner: Writes refinements.
        names: Role to name, for provenance.
    """

    director: BatchedDirector
    planner: BatchedWriter
    sketcher: BatchedSketcher
    inspector: BatchedWriter
    refiner: BatchedWriter
    names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, player: _AllRoles, name: str) -> Self:
        """One player in all roles."""
        roles = ("director", "planner", "sketcher", "inspector", "refiner")
        return cls(
            director=player,
            planner=player,
            sketcher=player,
            inspector=player,
            refiner=player,
            names=dict.fromkeys(roles, name),
        )

    def writer(self, moves: tuple[Move, ...]) -> BatchedWriter:
        """Return who writes one of several moves.

        Raises:
            ValueError: they belong to different players.
        """
        writers = [self._writer(move) for move in moves]
        if any(writer is not writers[0] for writer in writers):
            raise ValueError(
                f"{' and '.join(moves)} belong to different players, and the director left open "
                "which it is; set the policy's inspections to always or never"
            )
        return writers[0]

    def _writer(self, move: Move) -> BatchedWriter:
        if move in ("inspect plan", "inspect sketch"):
            return self.inspector
        return self.refiner if move in ("refine plan", "refine sketch") else self.planner

    def release(self, trajectory: Trajectory) -> None:
        """Let every player that keeps something for a trajectory give it up."""
        players = (self.director, self.planner, self.sketcher, self.inspector, self.refiner)
        for player in {id(player): player for player in players}.values():
            if isinstance(player, Remembering):
                player.release(trajectory)
