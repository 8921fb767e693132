"""The folder that `staged generate` draws into: one process at a time, and nothing is lost.

    settings.json     what decides every trajectory
    trajectory.json   of the only request, with its images and final.png; several have folders of
    00000/ 00001/ …   their own, numbered as they were asked for
    report.html       made anew from these by every run
    .lock             held by the process that draws

A trajectory is there whole or not at all, so that whatever kills the process costs what was being
drawn and no more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

from staged import strict_json
from staged.generate.requests import REQUESTS, DrawRequest
from staged.jobs import locks
from staged.jobs.files import read_json, sweep, text_in, write_json
from staged.settings import changes
from staged.trajectory import Trajectory
from staged.trajectory_folder import TRAJECTORY, load_trajectory, save_trajectory

SETTINGS: Final = "settings.json"
REPORT: Final = "report.html"
FORMAT: Final = "staged-generate/1"
_LOCK: Final = ".lock"
_OURS: Final = re.compile(
    r"settings\.json|report\.html|trajectory\.json|final\.png|\d+\.(?:png|webp|jpg)|\d{5}", re.ASCII
)


class OutFolder:
    """The folder of some requests, held by this process from entering to leaving it.

    Args:
        path: Made if need be.
        requests: What is asked for.

    Attributes:
        complete: Number of a request to whether its trajectory came to its end, for those that
            are there.
    """

    def __init__(self, path: Path, requests: Sequence[DrawRequest]) -> None:
        """Nothing is touched."""
        self.path, self.complete = path, dict[int, bool]()
        self._requests = requests
        self._leaving = ExitStack()

    def __enter__(self) -> Self:
        """Lock it.

        Raises:
            ValueError: another process draws there.
        """
        busy = f"another process draws into {self.path}; wait for it, or choose another --out"
        self._leaving.enter_context(locks.alone_in(self.path, _LOCK, busy))
        return self

    def __exit__(self, *_: object) -> None:
        """Let others in; a folder that was made for nothing goes away."""
        self._leaving.close()

    def refuse_others(self, decides: Mapping[str, Any], *, unknown: Collection[str] = ()) -> None:
        """Make sure that what lies here was, or will be, decided by the same things.

        Args:
            decides: What is known of them by now, by name, as plain data.
            unknown: Names of what is not known yet; what else is missing is decided by nothing.

        Raises:
            ValueError: The folder holds trajectories that were made otherwise (told by names), or
                files of other origin under the names that are to be written.
        """
        record = self.path / SETTINGS
        if not record.is_file():
            theirs = sorted(path.name for path in self.path.iterdir() if _OURS.fullmatch(path.name))
            if theirs:
                listed = ", ".join([*theirs[:3], *(["…"] if theirs[3:] else [])])
                raise ValueError(
                    f"{self.path} holds {listed} and no {SETTINGS} that says how they were made; "
                    "nothing is overwritten: choose another --out"
                )
            return
        made = strict_json.record(read_json(record), str(record), {"format": str, "decides": dict})
        if made["format"] != FORMAT:
            raise ValueError(f"{record}: format {made['format']!r:.40} is not {FORMAT!r}")
        names = {*decides, *made["decides"]} - {*unknown}
        differ = changes(
            *({name: found.get(name) for name in names} for found in (made["decides"], decides))
        )
        if differ:
            if made["decides"].get(REQUESTS) != decides.get(REQUESTS):
                self._find()  # the first that is not what is asked for, if it is there
            raise ValueError(
                f"{self.path} holds what was made otherwise: {'; '.join(differ)}; choose another "
                "--out, or remove the folder"
            )

    def begun_dtype(self) -> str | None:
        """Return the precision in which the folder was begun; None where it was not.

        Raises:
            ValueError: The record is damaged.
        """
        return text_in(self.path / SETTINGS, "decides", "dtype")

    def begin(self, decides: Mapping[str, Any]) -> None:
        """Write down what decides the trajectories, and see which of them are there.

        Args:
            decides: All of it.

        Raises:
            ValueError: see `refuse_others`; or a trajectory is damaged, or none that is asked for.
        """
        plain = strict_json.loads(strict_json.dumps(decides), place=SETTINGS, max_bytes=2**20)
        self.refuse_others(plain)
        sweep(self.path, lambda _: True, everyones=True)
        write_json(self.path / SETTINGS, {"format": FORMAT, "decides": plain})
        self.complete = self._find()

    def save(self, number: int, trajectory: Trajectory) -> None:
        """Put a trajectory into its place, whole."""
        save_trajectory(self._folder(number), trajectory)
        self.complete[number] = trajectory.complete

    def load(self, limit: int) -> list[Trajectory]:
        """Read the first of those that are there."""
        return [load_trajectory(self._folder(number)) for number in sorted(self.complete)[:limit]]

    def count(self) -> int:
        """How many trajectories seem to be there; `begin` looks at them."""
        numbers = range(len(self._requests))
        return sum((self._folder(number) / TRAJECTORY).is_file() for number in numbers)

    def _folder(self, number: int) -> Path:
        return self.path if len(self._requests) == 1 else self.path / f"{number:05d}"

    def _find(self) -> dict[int, bool]:
        return {
            number: self._asked_for(number, request).complete
            for number, request in enumerate(self._requests)
            if (self._folder(number) / TRAJECTORY).is_file()
        }

    def _asked_for(self, number: int, request: DrawRequest) -> Trajectory:
        folder = self._folder(number)
        found, start = load_trajectory(folder), request.start
        seed = found.provenance.get("seeds", {}).get("rollout")
        if (found.prompt, seed) != (start.prompt, request.seed):
            raise ValueError(
                f"{folder} holds {found.prompt!r:.80} with seed {seed} where {start.prompt!r:.80} "
                f"with seed {request.seed} is asked for; choose another --out, or remove the folder"
            )
        if [ref.png for ref in found.inputs] != [ref.png for ref in start.inputs]:
            raise ValueError(
                f"{folder} holds what was drawn from other input images; choose another --out, or "
                "remove the folder"
            )
        return found
