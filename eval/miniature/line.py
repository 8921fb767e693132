"""A sample's line in `samples.jsonl`: all that tables and figures are made of.

Whatever is estimated is estimated from these lines, so that it can be again without the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from staged import strict_json
from staged.lines import read_lines
from staged.shapes.tasks import Task

MAX_LINE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ScoredPicture:
    """A picture on the way, as it was judged.

    Attributes:
        round: Which plan it belongs to, from 1; without any plan all is one round.
        num_flow_steps: Network evaluations spent when it was there.
        correct: Shows what the prompt asks for, by GenEval's rule.
        exact: And nothing else.
        by_plan: Whether there was a plan.
        follows_plan: Whether it shows its plan's description exactly; None without a plan, or where
            that is not in the miniature world's language.
    """

    round: int
    num_flow_steps: int
    correct: bool
    exact: bool
    by_plan: bool = False
    follows_plan: bool | None = None


@dataclass(frozen=True, kw_only=True)
class SampleScore:
    """A sample's score, and how it came about.

    Attributes:
        key: Of the sample.
        task: Of its prompt.
        prompt: Its text.
        seed: Of its noise.
        correct: Everything asked for is there (GenEval's rule); None where unscored.
        exact: And nothing else is.
        reasons: Faults, surplus last; or why there is no score.
        kinds: Of the faults that make it wrong; of a correct one, of what is there beside.
        pictures: Those drawn on the way; of a search the best so far after each candidate, at
            what all until then had cost.
        num_flow_steps: Network evaluations, of all candidates where there were several.
        text_tokens: Written on the way.
        planned: Whether there was a plan; None where nothing was drawn.
        failure: Why the trajectory did not come to its end; empty where it did. Its last picture
            is scored all the same: it is what a user would get. Only numbers that are not finite
            leave nothing to score.
        candidates: Whether each candidate of a search is correct, None where it is no picture;
            empty without a search.
        process: What `eval.miniature.process` saw in its steps: names and values, None where
            something could not be judged.
    """

    key: str
    task: Task
    prompt: str
    seed: int
    correct: bool | None
    exact: bool | None
    reasons: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    pictures: tuple[ScoredPicture, ...] = ()
    num_flow_steps: int = 0
    text_tokens: int = 0
    planned: bool | None = None
    failure: str = ""
    candidates: tuple[bool | None, ...] = ()
    process: tuple[tuple[str, float | None], ...] = ()

    @property
    def num_sketches(self) -> int:
        """How many pictures were drawn on the way."""
        return len(self.pictures)

    @property
    def any_correct(self) -> bool | None:
        """Whether a better choice would have been correct; None without a picture to choose."""
        seen = [correct for correct in self.candidates if correct is not None]
        return any(seen) if seen else None

    def as_dict(self) -> dict[str, Any]:
        """Return the line as plain JSON data."""
        return {
            **vars(self),
            "reasons": list(self.reasons),
            "kinds": list(self.kinds),
            "pictures": [dict(vars(picture)) for picture in self.pictures],
            "candidates": list(self.candidates),
            "process": [list(pair) for pair in self.process],
        }


_REQUIRED = {
    "key": str,
    "task": str,
    "prompt": str,
    "seed": int,
    "reasons": list,
    "kinds": list,
    "pictures": list,
    "num_flow_steps": int,
    "text_tokens": int,
    "failure": str,
    "candidates": list,
    "process": list,
}
_OPTIONAL = {"correct": bool, "exact": bool, "planned": bool}
_PICTURE = {"round": int, "num_flow_steps": int, "correct": bool, "exact": bool, "by_plan": bool}


def read_scores(path: Path) -> Iterator[SampleScore]:
    """Read the lines that an evaluation left.

    Raises:
        ValueError: a line is not as it must be, or an older version wrote it.
        OSError: the file cannot be read.
    """
    for content, place in read_lines(path, max_bytes=MAX_LINE_BYTES):
        line = strict_json.loads_object(content, place=place, max_bytes=MAX_LINE_BYTES)
        if "process" not in line:
            raise ValueError(
                f"{place}: an older version wrote it, without all that tables need; score it "
                f"again: staged eval miniature --out {path.parent} --score-only"
            )
        yield _score(line, place)


def _score(line: dict[str, Any], place: str) -> SampleScore:
    record = strict_json.record(line, place, _REQUIRED, _OPTIONAL)
    if record["task"] not in get_args(Task):
        raise ValueError(f"{place}.task: {record['task']!r:.40} is none of the miniature's")
    _check_counts(record, place, seed=0, num_flow_steps=0, text_tokens=0)
    if any(type(correct) not in (bool, type(None)) for correct in record["candidates"]):
        raise ValueError(f"{place}.candidates: expected true, false or null for each")
    texts = {
        name: tuple(strict_json.unicode_text(text, f"{place}.{name}") for text in record[name])
        for name in ("reasons", "kinds")
    }
    return SampleScore(
        **{
            **dict.fromkeys(_OPTIONAL),
            **record,
            **texts,
            "pictures": tuple(_picture(p, f"{place}.pictures") for p in record["pictures"]),
            "candidates": tuple(record["candidates"]),
            "process": tuple(_observation(p, f"{place}.process") for p in record["process"]),
        }
    )


def _picture(value: Any, place: str) -> ScoredPicture:
    record = strict_json.record(value, place, _PICTURE, {"follows_plan": bool})
    _check_counts(record, place, round=1, num_flow_steps=0)
    return ScoredPicture(**record)


def _observation(pair: Any, place: str) -> tuple[str, float | None]:
    if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str:
        raise ValueError(f"{place}: {pair!r:.80}; expected a name and a value")
    name, value = pair
    if type(value) not in (int, float, type(None)):
        raise ValueError(f"{place}: {name!r:.60} has {value!r:.40}; expected a number or null")
    return name, None if value is None else float(value)


def _check_counts(record: Mapping[str, Any], place: str, **least: int) -> None:
    for name, number in least.items():
        if record[name] < number:
            raise ValueError(f"{place}.{name}: {record[name]} is below {number}")
