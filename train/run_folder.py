"""The folder of a run: one set of choices from start to end."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from staged import settings as job_settings
from staged.command_line import outputs
from staged.devices import settle
from staged.jobs.files import temporary, write_whole
from staged.lines import read_lines
from train.ranks import Ranks
from train.settings import TrainSettings

_SETTINGS = "settings.yaml"
_DATA = "data.sha256"
_PATIENCE_S = 60.0
_FREE = (
    *("out", "cache", "device", "num_threads", "num_workers"),
    *("checkpoint_every_steps", "keep_checkpoints", "max_minutes", "log", "parallel"),
    *("validation", "streaming", "attention", "deterministic"),
)
"""What may differ between the two parts of a run: none of it changes what is learned. Kernels of
attention are CUDA's, where other ones differ in the last bits."""


def settled(settings: TrainSettings, ranks: Ranks, *, resuming: bool) -> TrainSettings:
    """Say what `auto` stands for; in a run that goes on, the precision is the one that it has.

    Args:
        settings: Of this run.
        ranks: That share it; the first one's precision is everyone's.
        resuming: As in `require_own`.

    Raises:
        ValueError: There is no such device, or the earlier part's settings cannot be read.
    """
    path = settings.out / _SETTINGS
    begun = None
    if resuming and path.is_file():
        begun = job_settings.load(TrainSettings, path).dtype
    dtype = ranks.first(lambda: settle(settings, begun=begun).dtype)
    # On other ranks `auto` may be another device, and nothing is told twice.
    settings = replace(settings, dtype=dtype)
    return settle(settings, begun=begun, tell=lambda words: None)


def require_one_run(settings: TrainSettings, ranks: Ranks) -> None:
    """Require all ranks to have the settings of the first one.

    Raises:
        ValueError: They have not; says who differs in what.
    """
    everyones = ranks.gather(_binding(settings))
    for number, other in enumerate(everyones):
        if changed := job_settings.changes(everyones[0], other):
            raise ValueError(
                f"rank {number} was started with other settings than rank 0: "
                f"{'; '.join(changed)}. Start all processes of a run with the same"
            )


def require_shared_folder(out: Path, ranks: Ranks) -> None:
    """Require all ranks to see what the first one writes into the run's folder; nothing stays.

    Raises:
        ValueError: One does not.
    """
    if ranks.world_size == 1:
        return

    def leave_mark() -> str:
        out.mkdir(parents=True, exist_ok=True)
        mark = temporary(out / "mark")
        mark.touch()
        return mark.name

    mark = out / ranks.first(leave_mark)
    deadline = time.monotonic() + _PATIENCE_S
    try:
        # A shared file system may show a new file some seconds later to other machines.
        while not mark.is_file():
            if time.monotonic() > deadline:
                raise ValueError(
                    f"rank {ranks.number} does not see in {out} what rank 0 wrote there: `out` "
                    "must be a folder that all machines of a run share"
                )
            time.sleep(0.5)
        ranks.meet()
    finally:
        if ranks.is_first:
            mark.unlink(missing_ok=True)


def require_own(settings: TrainSettings, *, resuming: bool) -> None:
    """Require a folder to be free for a run, or its own; nothing is written.

    Args:
        settings: Of this run.
        resuming: A state of an earlier part is there, and binds.

    Raises:
        ValueError: The earlier part had other settings; names each.
        OSError: The folder cannot be written, or a part of its path is a file.
    """
    # How much room is needed is asked once the model is known.
    outputs.folder(settings.out, need_bytes=0)
    if resuming:
        require_own_settings(settings)


def require_own_settings(settings: TrainSettings) -> None:
    """Require the run that a folder holds to have these settings; nothing is written.

    Raises:
        ValueError: It has others; names each.
    """
    out, path = settings.out, settings.out / _SETTINGS
    if path.is_file():
        before = _binding(job_settings.load(TrainSettings, path))
        now = _binding(settings)
        if changed := job_settings.changes(before, now):
            raise ValueError(
                f"{out} holds a run with other settings: {'; '.join(changed)}. Continue it with "
                f"its own settings, choose another `out`, or remove {out / 'state'} to start over"
            )


def require_own_data(out: Path, fingerprint: str, *, resuming: bool) -> None:
    """Refuse to continue a run on other data; nothing is written.

    Raises:
        ValueError: The earlier part of the run read other data, or through another tokenizer or
            autoencoder.
    """
    path = out / _DATA
    if resuming and path.is_file() and path.read_text().strip() != fingerprint:
        raise ValueError(
            f"the data of {out} have changed since it began (or its tokenizer or autoencoder "
            f"has): restore them, choose another `out`, or remove {out / 'state'} to start over"
        )


def claim(settings: TrainSettings, fingerprint: str) -> None:
    """Record settings and data in the folder of a run, which no other process may be in.

    Args:
        settings: Of this run.
        fingerprint: Of its data.

    Raises:
        OSError: The folder cannot be written.
    """
    job_settings.save_resolved(settings, settings.out / _SETTINGS)
    write_whole(settings.out / _DATA, (fingerprint + "\n").encode())


def cut_log(path: Path, step: int) -> None:
    """Drop the lines of a log after `step`: they will be written again, alike.

    At step 0 that is all of it: what is measured before the first step is measured again.
    """
    if not path.is_file():
        return
    if not step:
        path.unlink()
        return
    kept = []
    for line in read_lines(path):
        try:
            if json.loads(line.content)["step"] <= step:
                kept.append(line.text() + "\n")
        except (ValueError, KeyError, TypeError):
            break  # the line a kill cut off
    write_whole(path, "".join(kept).encode())


def _binding(settings: TrainSettings) -> dict[str, Any]:
    """What a resumed run must share, as plain data."""
    chosen = job_settings.to_dict(settings)
    for key in _FREE:
        del chosen[key]
    for subset in chosen["data"]:
        del subset["path"]  # a moved data set is the same one; `require_own_data` looks inside
    return chosen
