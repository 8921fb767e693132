"""Scores of a run's model on the way, by whatever command draws with it and grades what it drew."""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from train.settings import ScorerSettings

_MAX_OUTPUT_BYTES: Final = 2**20
_MAX_SHOWN_CHARS: Final = 300
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


def score(settings: ScorerSettings, checkpoint: Path) -> float:
    """Run the command, and read the figure from the last line that it prints.

    It runs alone, whatever ranks share the training: it is told of none of them.

    Args:
        settings: Which command and figure.
        checkpoint: Folder of the model.

    Returns:
        A finite number.

    Raises:
        ScorerError: It cannot be started, fails, takes too long, or prints no such figure.
    """
    with tempfile.TemporaryDirectory(dir=checkpoint.parent, prefix=".scored-") as out:
        places = {"{checkpoint}": str(checkpoint), "{out}": str(Path(out) / "out")}
        words = [_filled(word, places) for word in settings.command]
        try:
            done = subprocess.run(
                words,
                capture_output=True,
                timeout=60 * settings.max_minutes,
                check=False,
                env=_alone(os.environ),
            )
        except subprocess.TimeoutExpired:
            raise ScorerError(
                f"{words[0]}: not done after {settings.max_minutes:g} minutes; give it more "
                "(validation.scorer.max_minutes), or less to do"
            ) from None
        except OSError as error:
            raise ScorerError(f"{words[0]}: {error.strerror or error}") from None
    said = done.stderr[-_MAX_OUTPUT_BYTES:].decode("utf-8", "replace").strip()
    if done.returncode:
        # Not all of its words: among them may be a key.
        raise ScorerError(f"{words[0]} ended with {done.returncode}: {_shown(said)}")
    lines = done.stdout[-_MAX_OUTPUT_BYTES:].decode("utf-8", "replace").strip().split("\n")
    return _figure(lines[-1], settings.figure)


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
