"""Scores of a run's model on the way, by whatever command draws with it and grades what it drew."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from train.settings import ScorerSettings

_MAX_OUTPUT_BYTES: Final = 2**20
_MAX_SHOWN_CHARS: Final = 300
_ASK_S, _GRACE_S = 0.2, 10.0
LEFTOVER: Final = ".scored-"
"""How the name of what a command draws begins, beside the model."""
_OF_RANKS: Final = frozenset(
    (
        *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
        *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
        *("MASTER_ADDR", "MASTER_PORT"),
    )
)
"""What torchrun tells its processes, besides `TORCHELASTIC_*`."""


class ScorerError(ValueError):
    """A command gave no score; says why."""


def score(
    settings: ScorerSettings, checkpoint: Path, stop: Callable[[], bool] = lambda: False
) -> float | None:
    """Run the command, and read the figure from the last line that it prints.

    It runs alone, whatever ranks share the training: it is told of none of them. No signal from a
    terminal reaches it, and it ends with this call at the latest.

    Args:
        settings: Which command and figure.
        checkpoint: Folder of the model.
        stop: Asked now and then; once it says so, the command is ended.

    Returns:
        A finite number; None where it was to stop.

    Raises:
        ScorerError: It cannot be started, fails, takes too long, or prints no such figure.
    """
    with tempfile.TemporaryDirectory(dir=checkpoint.parent, prefix=LEFTOVER) as out:
        places = {"{checkpoint}": str(checkpoint), "{out}": str(Path(out) / "out")}
        words = [_filled(word, places) for word in settings.command]
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complaint:
            try:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=complaint,
                    env=_alone(os.environ),
                    start_new_session=True,
                )
            except OSError as error:
                raise ScorerError(f"{words[0]}: {error.strerror or error}") from None
            try:
                if not _ended(process, 60 * settings.max_minutes, stop):
                    return None
            except TimeoutError:
                raise ScorerError(
                    f"{words[0]}: not done after {settings.max_minutes:g} minutes; give it more "
                    "(validation.scorer.max_minutes), or less to do"
                ) from None
            finally:
                _end(process)
            lines, words_said = _last_of(said).split("\n"), _last_of(complaint)
    if process.returncode:
        # Not all of its words: among them may be a key.
        raise ScorerError(f"{words[0]} ended with {process.returncode}: {_shown(words_said)}")
    return _figure(lines[-1], settings.figure)


def _ended(process: subprocess.Popen[bytes], within_s: float, stop: Callable[[], bool]) -> bool:
    """Wait for the end; false where it is to stop before.

    Raises:
        TimeoutError: It takes longer.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            process.wait(max(0.0, min(_ASK_S, deadline - time.monotonic())))
            return True
        except subprocess.TimeoutExpired:
            if stop():
                return False
            if time.monotonic() >= deadline:
                raise TimeoutError from None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command that has not ended, and what it started: first by asking."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)


def _last_of(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _MAX_OUTPUT_BYTES))
    return file.read().decode("utf-8", "replace").strip()


def _alone(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out that this process is one of several: a command would do its share only."""
    return {
        name: value
        for name, value in environment.items()
        if name not in _OF_RANKS and not name.startswith("TORCHELASTIC_")
    }


def _filled(word: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        word = word.replace(name, place)
    return word


def _figure(line: str, name: str) -> float:
    try:
        found: Any = json.loads(line)
    except ValueError:
        raise ScorerError(f"its last line is no JSON: {line!r:.200}; give --json") from None
    for key in name.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise ScorerError(f"no number at {name!r} in {line!r:.200} (validation.scorer.figure)")
    return float(found)


def _shown(text: str) -> str:
    last = " ".join(text.split())
    return f"…{last[-_MAX_SHOWN_CHARS:]}" if len(last) > _MAX_SHOWN_CHARS else last
