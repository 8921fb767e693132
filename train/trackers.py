"""Where figures and pictures of a run go besides its own files: TensorBoard, Weights & Biases."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from staged import settings as job_settings
from staged.jobs.files import write_whole
from staged.shards.streaming import shown
from train.settings import TrainSettings

_PROJECT = "staged"


class Tracker(Protocol):
    """Shows what a run tells it."""

    def record(self, step: int, figures: Mapping[str, float]) -> None:
        """Show the figures of a step."""

    def picture(self, step: int, pixels: NDArray[np.uint8]) -> None:
        """Show (h, w, 3) pixels drawn after a step."""

    def close(self) -> None:
        """Bring everything to where it belongs."""


def require_trackers(settings: TrainSettings) -> None:
    """Require the packages of what a run asks for, before it reads any weights.

    Raises:
        ValueError: One is not installed.
    """
    if "wandb" in settings.log.trackers and find_spec("wandb") is None:
        raise ValueError(
            "log.trackers names wandb, whose package is not installed; pip install staged[wandb], "
            "or leave it out"
        )


def open_trackers(settings: TrainSettings, step: int) -> list[Tracker]:
    """Open what a run asks for.

    Args:
        settings: Of the run.
        step: Steps done; what an earlier part showed beyond them is shown again, alike.

    Raises:
        OSError: Weights & Biases cannot be reached, or knows no such user.
    """
    makers: dict[str, Callable[[TrainSettings, int], Tracker]] = {
        "tensorboard": TensorBoard,
        "wandb": WeightsAndBiases,
    }
    return [makers[name](settings, step) for name in settings.log.trackers]


class TensorBoard:
    """Event files in `<out>/tensorboard`."""

    def __init__(self, settings: TrainSettings, step: int) -> None:
        """Open the files; see `open_trackers`."""
        self._board = SummaryWriter(settings.out / "tensorboard", purge_step=step and step + 1)

    def record(self, step: int, figures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)

    def picture(self, step: int, pixels: NDArray[np.uint8]) -> None:
        """See `Tracker`."""
        self._board.add_image("samples", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """See `Tracker`."""
        self._board.close()


class WeightsAndBiases:
    """A run of Weights & Biases, which a run that goes on continues.

    Who one is, where the server is and whether to send anything say the variables of the
    environment that its client reads: `WANDB_API_KEY`, `WANDB_BASE_URL`, `WANDB_ENTITY`,
    `WANDB_PROJECT`, `WANDB_MODE=offline`. Not accelerate's tracker: that wants accelerate's state,
    which sets threads and processes up its own way.
    """

    def __init__(self, settings: TrainSettings, step: int) -> None:
        """Begin or go on; see `open_trackers`.

        It takes steps in their order only, and so keeps what an earlier part told it beyond a
        state; a run that goes on tells the same again.
        """
        import wandb

        self._wandb = wandb
        try:
            self._run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT", _PROJECT),
                name=os.environ.get("WANDB_NAME", settings.out.name),
                dir=str(settings.out),
                id=_run_id(settings.out / "wandb.id"),
                resume="allow",
                config=told(settings),
                # The terminal is the run's own.
                settings=wandb.Settings(console="off", quiet=True),
            )
        except wandb.Error as error:
            raise OSError(
                f"Weights & Biases does not take the run: {error}. Set WANDB_API_KEY, or "
                "WANDB_MODE=offline to keep it here (wandb sync sends it later), or leave wandb "
                "out of log.trackers"
            ) from error

    def record(self, step: int, figures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log(dict(figures), step=step)

    def picture(self, step: int, pixels: NDArray[np.uint8]) -> None:
        """See `Tracker`."""
        self._run.log({"samples": self._wandb.Image(pixels)}, step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


def told(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings as plain data for others, without what may be a secret.

    That is the queries of addresses of data, and all words of a scorer's command but the first.
    """
    facts = job_settings.to_dict(settings)
    for subset in facts["data"]:
        subset["path"] = shown(subset["path"])
    if facts["validation"] is not None:
        facts["validation"]["data"] = [shown(place) for place in facts["validation"]["data"]]
        if (scorer := facts["validation"]["scorer"]) is not None:
            scorer["command"] = [*scorer["command"][:1], "..."]
    return facts


def _run_id(path: Path) -> str:
    """Name of a run at Weights & Biases, made up once."""
    if not path.is_file():
        write_whole(path, secrets.token_hex(8).encode())
    return path.read_text().strip()
