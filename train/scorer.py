"""Scores of a run's model on the way, by whatever command draws with it and grades what it drew."""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from train.settings import ScorerSettings

_MAX_OUTPUT_BYTES: Final = 2**20
_MAX_SHOWN_CHARS: Final = 300


class ScorerError(ValueError):
    """A command gave no score; says why."""


def score(settings: ScorerSettings, checkpoint: Path) -> float:
    """Run the command, and read the figure from the last line that it prints.

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
                words, capture_output=True, timeout=60 * settings.max_minutes, check=False
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
        raise ScorerError(f"{' '.join(words)} ended with {done.returncode}: {_shown(said)}")
    lines = done.stdout[-_MAX_OUTPUT_BYTES:].decode("utf-8", "replace").strip().split("\n")
    return _figure(lines[-1], settings.figure)


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
