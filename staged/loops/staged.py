"""The loop: plan, sketch, inspect, refine, until whoever directs it stops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from staged.loops.policy import Policy
from staged.loops.roles import Roles
from staged.loops.rollout import OnEvent
from staged.loops.rollouts import LostRollout, Rollouts
from staged.trajectory import Trajectory

DEFAULT_BATCH_SIZE = 64


class StagedLoop:
    """Roles and a policy, for prompts that are known from the start; see `Rollouts` for others."""

    def __init__(
        self, roles: Roles, policy: Policy | None = None, *, batch_size: int = DEFAULT_BATCH_SIZE
    ) -> None:
        """Check that they fit.

        Args:
            roles: Who plays.
            policy: Mode and limits.
            batch_size: Trajectories that advance together, at most.

        Raises:
            ValueError: the limits leave no flow steps for a single sketch.
        """
        self.roles, self.policy, self.batch_size = roles, policy or Policy(), batch_size
        self.policy.check_cost(roles.sketcher.num_flow_steps)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; give at least 1")

    def run(
        self,
        starts: Sequence[str | Trajectory],
        seeds: Sequence[int],
        on_event: OnEvent | None = None,
    ) -> list[Trajectory]:
        """Take prompts, or trajectories begun elsewhere, to their end.

        Args:
            starts: Prompts, or trajectories to go on from: with input images, or with steps that
                may have been edited.
            seeds: One for each; the same start and seed take the same way.
            on_event: Told of everything as it happens.

        Returns:
            The trajectories in order. One whose step failed for good is not complete; its
            provenance has `failure`.
        """
        ended = dict(self.stream(starts, seeds, on_event))
        return [ended[index] for index in range(len(starts))]

    def stream(
        self,
        starts: Sequence[str | Trajectory],
        seeds: Sequence[int],
        on_event: OnEvent | None = None,
    ) -> Iterator[tuple[int, Trajectory]]:
        """Do what `run` does, and give each trajectory as it ends, with its place among `starts`.

        Another begins as soon as one has ended.
        """
        if len(starts) != len(seeds):
            raise ValueError(f"{len(seeds)} seeds for {len(starts)} prompts; give one for each")
        rollouts, begun = Rollouts(room=self.batch_size, on_event=on_event), 0
        while begun < len(starts) or rollouts:
            while begun < len(starts) and rollouts.room:
                rollouts.join(
                    starts[begun], seed=seeds[begun], roles=self.roles, policy=self.policy
                )
                begun += 1
            try:
                yield from rollouts.advance()
            except LostRollout as lost:
                raise (lost.__cause__ or lost) from None
