"""Votes: what a page exports, read as something that anybody may have written, and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eval.results import BenchmarkResult
from eval.study.items import LINES, StudyKey
from staged import strict_json

FORMAT: Final = "staged-votes/1"
BENCHMARK: Final = "preference"
_MAX_BYTES: Final = 4 * 2**20
_MAX_NAME_CHARS: Final = 100


@dataclass(frozen=True, kw_only=True)
class Votes:
    """What one person preferred.

    Attributes:
        voter: As they call themselves.
        choices: Item to the number of the picture, from 0; None where none was preferred.
    """

    voter: str
    choices: Mapping[str, int | None]


def read_votes(path: Path, key: StudyKey) -> Votes:
    """Read what a page exported.

    Raises:
        ValueError: It is of another study, or no votes; names the file.
        OSError: It cannot be read.
    """
    place = str(path)
    data = strict_json.read(path, max_bytes=_MAX_BYTES)
    fields = {"format": str, "study": str, "voter": str, "votes": dict}
    found = strict_json.record(data, place, fields, {"seconds": float})
    if found["format"] != FORMAT:
        raise ValueError(f"{place}: format {found['format']!r:.40} is not {FORMAT!r}")
    if found["study"] != key.digest:
        raise ValueError(
            f"{place}: these votes are of the study {found['study']:.12}, and the key is that of "
            f"{key.digest:.12} ({key.title!r}); give the key that was written beside their page"
        )
    voter = strict_json.unicode_text(found["voter"], f"{place}: voter").strip()
    if not 1 <= len(voter) <= _MAX_NAME_CHARS:
        raise ValueError(f"{place}: voter {voter!r:.120}; expected a name")
    choices: dict[str, int | None] = {}
    for item, choice in found["votes"].items():
        pictures = key.lines.get(item)
        if pictures is None:
            raise ValueError(f"{place}: there is no item {item!r:.40} in this study")
        if choice is not None and (type(choice) is not int or not 0 <= choice < len(pictures)):
            raise ValueError(
                f"{place}: item {item} has {len(pictures)} pictures, and the vote is {choice!r:.40}"
            )
        choices[item] = choice
    return Votes(voter=voter, choices=choices)


def count(key: StudyKey, votes: Sequence[Votes]) -> dict[str, BenchmarkResult]:
    """Count votes: the share of preferences that each line has.

    Args:
        key: Of the study.
        votes: Of different people.

    Returns:
        By line: a result whose samples are ideas, with each vote's share for the line (1 where its
        picture was preferred, less where other lines have the same one). A vote for none, or none
        at all, is unscored.

    Raises:
        ValueError: Two are of the same person, or nobody voted.
    """
    seen: set[str] = set()
    for one in votes:
        if one.voter in seen:
            raise ValueError(
                f"two files hold votes of {one.voter!r}; give the later one, or let them differ"
            )
        seen.add(one.voter)
    shares: dict[str, dict[str, tuple[float | None, ...]]] = {line: {} for line in LINES}
    preferred = 0
    for item, pictures in key.lines.items():
        cluster = key.clusters[item]
        for one in votes:
            choice = one.choices.get(item)
            preferred += choice is not None
            for line in LINES:
                share = None
                if choice is not None:
                    lines = pictures[choice]
                    share = (line in lines) / len(lines)
                of_idea = shares[line]
                of_idea[cluster] = (*of_idea.get(cluster, ()), share)
    if not preferred:
        raise ValueError("nobody preferred anything: there is nothing to count")
    variant = {"study": key.digest[:12], "voters": str(len(votes))}
    return {
        line: BenchmarkResult(
            benchmark=BENCHMARK,
            variant=variant,
            samples={"votes": ideas},
            weights={"votes": 1.0},
            run=LINES[line],
        )
        for line, ideas in shares.items()
    }
