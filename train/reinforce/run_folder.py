"""The folder of a run of reinforcement: whose it is, and what of it is kept."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from staged import settings as job_settings
from staged.command_line import outputs
from staged.jobs.files import write_whole
from train.reinforce.settings import ReinforceSettings
from train.state import RunState

_SETTINGS, _ROLLOUTS = "settings.yaml", "rollouts"
_PROMPTS = "prompts.sha256"
_FREE = (
    *("out", "prompts", "iterations", "device", "num_threads", "pack_tokens"),
    *("keep_checkpoints", "keep_rollouts", "trackers", "probe", "collapse", "parallel"),
)
"""What may differ between the parts of a run; of the prompts it is asked whether they are the same.

Rollouts do not depend on `pack_tokens`, and one that is too long for it must not end a run for
good.
"""


class ReinforceFolder:
    """The folder as a process found it: nothing but its own run may have changed it since."""

    def __init__(
        self,
        settings: ReinforceSettings,
        prompts: Sequence[str],
        state: RunState,
        found: Sequence[int],
    ) -> None:
        """Take the folder as it was found; touches nothing.

        Args:
            settings: Of this part of the run.
            prompts: As the file has them.
            state: Of the run.
            found: Iterations that it held when this process looked.
        """
        self._settings, self._state, self._found = settings, state, list(found)
        self._digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()

    def require_own(self) -> None:
        """Require the folder to hold this run or none, as it was found; touches nothing.

        Raises:
            ValueError: It holds a run with other settings or prompts; names each. Or another
                process has taken the run on.
            OSError: It cannot be written.
        """
        out = outputs.folder(self._settings.out, need_bytes=0)
        if (steps := self._state.steps()) != self._found:
            raise ValueError(
                f"another process has taken the run in {out} to iteration {max(steps, default=0)}; "
                "the same command goes on from there"
            )
        if self._found and (changed := self._changed()):
            raise ValueError(
                f"{out} holds a run with other settings: {'; '.join(changed)}. Continue it with "
                f"its own, choose another `out`, or remove {out / 'state'} to start over"
            )

    def claim(self) -> None:
        """Record settings and prompts in the folder, which no other process may be in.

        Where no state is there to bind, what was drawn for another run is removed, and all but
        what the first iteration drew.

        Raises:
            ValueError: As `require_own`, of what happened since.
        """
        self.require_own()
        out = self._settings.out
        if not self._found:
            if self._changed():
                shutil.rmtree(out / _ROLLOUTS, ignore_errors=True)
            # Without a state no weights are there that could have drawn those of later iterations.
            for folder in self._iterations():
                if int(folder.name) > 1:
                    shutil.rmtree(folder)
        job_settings.save_resolved(self._settings, out / _SETTINGS)
        write_whole(out / _PROMPTS, (self._digest + "\n").encode())

    def rollouts(self, iteration: int) -> Path:
        """Where an iteration's rollouts lie."""
        return self._settings.out / _ROLLOUTS / f"{iteration:05d}"

    def drop_old(self) -> None:
        """Remove all but the newest iterations' rollouts, as many as the settings keep."""
        for folder in self._iterations()[: -self._settings.keep_rollouts]:
            shutil.rmtree(folder)

    def _iterations(self) -> list[Path]:
        """Folders of iterations that were drawn, in order."""
        drawn = (self._settings.out / _ROLLOUTS).glob("*")
        return sorted(path for path in drawn if path.name.isdecimal())

    def _changed(self) -> list[str]:
        """What is otherwise than in the run that the folder holds, if it holds one."""
        settings, before = self._settings, begun(self._settings.out)
        changed = job_settings.changes(_binding(before), _binding(settings)) if before else []
        path = settings.out / _PROMPTS
        if path.is_file() and path.read_text().strip() != self._digest:
            changed.append(f"the prompts of {settings.prompts} are not those that it began with")
        return changed


def begun(out: Path) -> ReinforceSettings | None:
    """Settings of the run that a folder holds.

    Raises:
        ValueError: They cannot be read.
    """
    path = out / _SETTINGS
    return job_settings.load(ReinforceSettings, path) if path.is_file() else None


def facts_of(state: RunState) -> dict[str, Any]:
    """What a state says of the iterations before it.

    Returns:
        `rewards`, one for each iteration that had any, and `one_shot`, of the probe before the
        first; None where there was none.

    Raises:
        ValueError: It is damaged.
    """
    said = state.facts()
    try:
        rewards = [float(one) for one in json.loads(said.get("rewards", "[]"))]
        one_shot = json.loads(said.get("one_shot", "null"))
        known = [*rewards, *([] if one_shot is None else [float(one_shot)])]
    except (ValueError, TypeError) as error:
        raise ValueError(f"the newest state in {state.folder} is damaged ({error})") from None
    if not all(map(math.isfinite, known)):
        raise ValueError(f"the newest state in {state.folder} is damaged: a reward is not finite")
    return {"rewards": rewards, "one_shot": one_shot}


def _binding(settings: ReinforceSettings) -> dict[str, Any]:
    """What a run that goes on must share, as plain data."""
    chosen = job_settings.to_dict(settings)
    for key in _FREE:
        del chosen[key]
    del chosen["rollouts"]["batch_size"]
    return chosen
