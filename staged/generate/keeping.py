"""Keeping many trajectories in numbered folders, so that an interrupted command goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from staged import strict_json
from staged.jobs.files import read_json, write_json
from staged.loops.events import Event, Failed, Stopped
from staged.trajectory import Trajectory
from staged.trajectory_folder import TRAJECTORY, load_trajectory, save_trajectory

RECORD: Final = "settings.json"


class Keeper:
    """Saves each trajectory as it ends, so that what is drawn outlives an interruption.

    Attributes:
        saved: Number to its trajectory, images named as the files are.
    """

    def __init__(self, out: Path, count: int) -> None:
        """Save one trajectory in `out` itself, several in numbered folders below."""
        self.saved: dict[int, Trajectory] = {}
        self._out, self._count = out, count

    def __call__(self, number: int, event: Event) -> None:
        """Save the trajectory that an event ends."""
        if isinstance(event, Stopped | Failed):
            self.saved[number] = save_trajectory(self._folder(number), event.trajectory)

    def go_on(
        self, starts: Sequence[Trajectory], seeds: Sequence[int], deciding: Mapping[str, Any]
    ) -> list[int]:
        """Take up what an earlier run of the same command saved. One trajectory begins anew.

        Args:
            starts: What is asked for.
            seeds: Of each.
            deciding: What else decides a trajectory: model and settings, as plain data.

        Returns:
            Numbers of the trajectories that are still to be drawn.

        Raises:
            ValueError: The folder holds trajectories made otherwise, or damaged ones.
        """
        if self._count == 1:
            return [0]
        path = self._out / RECORD
        made = read_json(path) if path.is_file() else None
        now = strict_json.loads(strict_json.dumps(deciding), place="settings", max_bytes=2**20)
        if made is not None and made != now:
            theirs = made if isinstance(made, dict) else {}
            differ = sorted(k for k in {*theirs, *now} if theirs.get(k) != now.get(k))
            raise ValueError(
                f"{self._out} holds trajectories made with another {', '.join(differ)}; "
                "choose another --out, or remove it"
            )
        self._out.mkdir(parents=True, exist_ok=True)
        write_json(path, now)
        for number, (start, seed) in enumerate(zip(starts, seeds, strict=True)):
            if made is not None and (self._folder(number) / TRAJECTORY).is_file():
                self.saved[number] = self._same(number, start, seed)
        return [number for number in range(self._count) if number not in self.saved]

    def in_order(self) -> list[Trajectory]:
        """List what is saved in the order in which it was asked for."""
        return [self.saved[number] for number in sorted(self.saved)]

    def _folder(self, number: int) -> Path:
        return self._out if self._count == 1 else self._out / f"{number:05d}"

    def _same(self, number: int, start: Trajectory, seed: int) -> Trajectory:
        found = load_trajectory(self._folder(number))
        inputs = [ref.png for ref in found.inputs]
        asked = (start.prompt, seed, [ref.png for ref in start.inputs])
        if (found.prompt, found.provenance.get("seeds", {}).get("rollout"), inputs) != asked:
            raise ValueError(
                f"{self._folder(number)} holds {found.prompt!r:.80} where {start.prompt!r:.80} "
                f"with seed {seed} is asked for; choose another --out, or remove it"
            )
        return found
