"""`staged train --export`: the checkpoint of a state that a run has left, from that state alone.

The run's data may be gone, and its device another one; and it may be going on meanwhile, for states
are written whole.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from train.ranks import Ranks
from train.run_folder import require_one_run, require_own_settings, settled
from train.run_model import RunModel
from train.scoring import kept_score
from train.settings import TrainSettings
from train.state import RunState
from train.validation import Best


def export_run(settings: TrainSettings, ranks: Ranks, folder: Path, *, best: bool) -> int:
    """Write the model of the newest state, or of the best; nothing else of the run is touched.

    Args:
        settings: Of the run.
        ranks: That share the work.
        folder: To write; replaced when the new one is whole.
        best: That with the least validation loss, or the best score, as the run itself has it.

    Returns:
        The state's step.

    Raises:
        ValueError: There is no such state, it is damaged, or the settings are of another run.
        OSError: The folder cannot be written.
    """
    state = RunState(settings.out, ranks)
    ranks.first(state.require_any)  # before the weights are read
    settings = settled(settings, ranks, resuming=True)
    ranks.first(lambda: require_own_settings(settings))
    require_one_run(settings, ranks)
    step: int = ranks.first(lambda: _best_step(settings, state) if best else state.steps()[-1])
    # Nothing is computed: what only some devices can, or takes long to make, is not needed.
    plain = replace(settings, matmuls="as_dtype", compile=False, attention="blocks")
    run = RunModel(plain, ranks)
    run.begin_average()
    state.load(run.parameters, None, run.average, step)
    run.write(folder)
    return step


def _best_step(settings: TrainSettings, state: RunState) -> int:
    """What the newest state says is best, unless a score of its own came later."""
    steps, validation = state.steps(), settings.validation
    best = None
    if validation is not None and validation.keep_best:
        found = state.facts().get("best")
        best = None if found is None else Best.read(found)
        scorer, scored = validation.scorer, kept_score(settings.out)
        if scorer is not None and scored is not None and scored.step == steps[-1]:
            loss = -scored.score if scorer.larger_is_better else scored.score
            if best is None or best.of != scored.of or loss < best.loss:
                best = Best(step=scored.step, loss=loss, of=scored.of)
    if best is None or best.step not in steps:
        raise ValueError(
            f"{settings.out} holds no state with the least validation loss: that takes "
            "`validation` with keep_best=true, and a step at which it was measured"
        )
    return best.step
