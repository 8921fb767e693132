"""How scored images were made, for the result, once it is sure that they are the scored ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.generation.store import FOLDER, SAMPLES, SETTINGS
from eval.geneval.detections import MAX_LINE_BYTES
from eval.results import BenchmarkResult, versions
from staged import strict_json
from staged.jobs.files import read_json
from staged.lines import read_lines


@dataclass(frozen=True, kw_only=True)
class Made:
    """How a folder's images were made.

    Attributes:
        name: Of the generator.
        provenance: For a result: what decided the images, its fingerprint, and that of the images.
        verifier: Name of who chose them among candidates; empty where nobody did.
    """

    name: str
    provenance: dict[str, Any]
    verifier: str = ""

    def told_in(self, result: BenchmarkResult) -> BenchmarkResult:
        """Let a result say of what it is, what it rests on, and the versions here."""
        provenance = {**self.provenance, "versions": versions(), **result.provenance}
        return replace(result, run=self.name, provenance=provenance)


def made(folder: Path, scores: Sequence[Path]) -> Made:
    """Read how a folder's images were made, and check that a scorer saw these and no others.

    Args:
        folder: As `staged eval generate` left it, finished.
        scores: JSON lines of detections, judgements or answers; `sha256` in a line is of the image.

    Raises:
        ValueError: nothing was generated there, not all of it, or other images were scored, or no
            line says which.
        OSError: a file cannot be read.
    """
    settings, samples = folder / FOLDER / SETTINGS, folder / SAMPLES
    for path in (settings, samples):
        if not path.is_file():
            raise ValueError(
                f"{path} is missing: `staged eval generate` writes it, {SAMPLES} once every sample "
                "was tried"
            )
    record = strict_json.record(
        read_json(settings), str(settings), {"format": str, "decides": dict, "also": dict}
    )
    scored = set(_hashes(scores))
    if not scored:
        raise ValueError(
            f"{scores[0]}: no line has the SHA-256 of its image, so nobody can tell whether the "
            f"images of {folder} were scored; leave --generated out"
        )
    others = scored - set(_hashes([samples]))
    if others:
        raise ValueError(
            f"{len(others)} scored images are not of {folder}, by their SHA-256 (such as "
            f"{min(others)[:12]}…): score the images that are there, or name their own folder"
        )
    decides = record["decides"]
    search = decides.get("search")
    return Made(
        name=str(record["also"].get("name", "")),
        verifier=str(search.get("verifier", "")) if isinstance(search, dict) else "",
        provenance={
            "generated": {
                "decides": decides,
                "fingerprint": hashlib.sha256(strict_json.dumps(decides).encode()).hexdigest(),
                "samples_sha256": hashlib.sha256(samples.read_bytes()).hexdigest(),
                "versions": record["also"].get("versions", {}),
            }
        },
    )


def _hashes(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        for line in read_lines(path, max_bytes=MAX_LINE_BYTES):
            record = strict_json.loads(line.content, place=line.place, max_bytes=MAX_LINE_BYTES)
            if isinstance(record, dict) and isinstance(record.get("sha256"), str):
                yield record["sha256"]
