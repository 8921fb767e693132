"""Whether so many ranks can share a run: asked by the run before it begins, and by its plan."""

from __future__ import annotations

from train.settings import TrainSettings


def require_ranks(settings: TrainSettings, num_ranks: int) -> None:
    """Require a run to have work for each of its ranks, and a part of the model.

    Raises:
        ValueError: It has not; as `problem_of_ranks` says.
    """
    if problem := problem_of_ranks(settings, num_ranks):
        raise ValueError(problem)


def problem_of_ranks(settings: TrainSettings, num_ranks: int) -> str:
    """Why so many ranks cannot share a run, and the way out; nothing where they can."""
    replicas, packs = settings.parallel.replicas, settings.packs_per_step
    if num_ranks % replicas:
        divisors = [str(n) for n in range(1, num_ranks + 1) if num_ranks % n == 0]
        return (
            f"parallel.replicas is {replicas}, which does not divide {num_ranks} "
            f"{'ranks' if num_ranks > 1 else 'rank'}; give one of {', '.join(divisors)}"
        )
    if packs < num_ranks:
        return (
            f"packs_per_step={packs} leaves {num_ranks - packs} of {num_ranks} ranks without "
            f"work; give packs_per_step={num_ranks} or more (it counts the packs of all ranks), "
            "or start fewer ranks"
        )
    return ""
