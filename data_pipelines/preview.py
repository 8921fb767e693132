"""Trajectories on one web page that needs nothing beside it: a look at a data set."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, get_args

from data_pipelines.job import LEDGER
from data_pipelines.reasons import mistake_in_words, reason_in_words
from data_pipelines.shards import trajectories, with_images
from staged.jobs.records import Records, Status, UnitResult, is_older
from staged.report import (
    Cell,
    Claim,
    Claims,
    Notes,
    Opinion,
    Outcome,
    Report,
    Row,
    Section,
    Table,
    Trajectories,
)
from staged.shards import Manifest, read_manifest, read_shards
from staged.trajectory import Trajectory

_OPEN = 3
"""Samples that are shown step by step from the start."""
_PLURALS = {
    "plan": "plans",
    "sketch": "sketches",
    "inspection": "inspections",
    "refinement": "refinements",
    "answer": "answers",
    "thought": "thoughts",
}


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which trajectories are wanted; words are found in any case, and without any all pass.

    Attributes:
        ends: How the unit ended.
        reason: Words of why it was left out, as the page says them or as the ledger counts them.
        prompt: Words of the prompt.
        task: Its task.
    """

    ends: Collection[Status] = ("accepted", "rejected", "failed")
    reason: str = ""
    prompt: str = ""
    task: str = ""

    def wants(self, trajectory: Trajectory, result: UnitResult) -> bool:
        """Whether a trajectory is to be shown."""
        why = f"{result.stage}: {result.reason}"
        words = f"{why} {reason_in_words(result.stage, result.reason)} {result.detail}"
        return (
            result.status in self.ends
            and (result.status != "accepted" or not self.reason)
            and self.reason.casefold() in words.casefold()
            and self.prompt.casefold() in trajectory.prompt.casefold()
            and self.task in ("", trajectory.task)
        )

    def in_words(self) -> str:
        """Say what is shown; empty where everything is."""
        given = [
            *([" or ".join(self.ends)] if len(self.ends) < len(get_args(Status)) else []),
            *([f"left out for {self.reason!r}"] if self.reason else []),
            *([f"prompts with {self.prompt!r}"] if self.prompt else []),
            *([f"task {self.task}"] if self.task else []),
        ]
        return f"Shown are only: {', '.join(given)}." if given else ""


_EVERYTHING: Final = Filter()
_KEPT: Final = UnitResult(status="accepted")


def write_preview(folder: Path, path: Path, *, number: int, wanted: Filter = _EVERYTHING) -> int:
    """Write the page of a data set: samples of its shards, and of what its job rejected.

    Args:
        folder: The data set.
        path: The page.
        number: Most accepted samples, and most others.
        wanted: Which of them; all are looked through, and the first that fit are shown.

    Returns:
        Trajectories on the page.

    Raises:
        FileNotFoundError: no finished data set is there.
        ValueError: it has no such trajectories, and its job left none out.
    """
    if number < 1:
        raise ValueError(f"number is {number}; expected at least 1")
    manifest = read_manifest(folder)
    kept = [
        (sample.trajectory, _outcome(sample.trajectory, [("sample", sample.key)]))
        for sample in islice(
            (s for s in read_shards(folder) if wanted.wants(s.trajectory, _KEPT)), number
        )
    ]
    others = list(islice(_others(folder, manifest.fingerprints, wanted), number))
    if not kept and not others:
        raise ValueError(f"{folder} has no trajectories to show. {wanted.in_words()}".rstrip())
    sections: list[Section] = [
        _shown("Samples", "The first of the data set.", kept[:_OPEN]),
        *_reasons(manifest),
    ]
    if others:
        said = "As far as each of them came; open one to see its steps."
        sections.append(_shown("Left out", said, others, folded=True))
    if kept[_OPEN:]:
        said = "Open one to see its steps."
        sections.append(_shown("More samples", said, kept[_OPEN:], folded=True))
    notes = [
        "A step that is not trained on is there to be read: a deliberate mistake, which the "
        "inspection behind it finds and the refinement corrects.",
        f"Folder: {folder}.",
    ]
    report = Report(
        title=manifest.title,
        kind="data set",
        lead=wanted.in_words(),
        opening=_opening(manifest),
        sections=[*sections, Notes(title="How to read this", paragraphs=notes)],
    )
    report.write(path)
    return len(kept) + len(others)


def _opening(manifest: Manifest) -> Claims:
    ends = manifest.acceptance.get("samples", {})
    total = sum(ends.values())
    if not total:
        said = f"{manifest.stats.get('trajectories', 0)} trajectories."
    else:
        said = f"{ends.get('accepted', 0)} of {total} prompts became trajectories."
    steps = manifest.stats.get("steps", {})
    made = ", ".join(
        f"{steps[kind]} {plural}" for kind, plural in _PLURALS.items() if steps.get(kind)
    )
    left = total - ends.get("accepted", 0)
    detail = f"In them: {made}." if made else ""
    if left:
        detail += f" {left} were left out; the reasons stand below."
    return Claims(claims=[Claim(text=said, tone="accent", detail=detail.strip())])


def _reasons(manifest: Manifest) -> list[Section]:
    """Say what was left out and why, most frequent first."""
    counts: Counter[str] = Counter()
    for stage, rows in manifest.acceptance.items():
        if stage != "samples":
            for reason, amount in rows.items():
                if reason == "accepted":
                    continue
                counts[reason_in_words(stage, reason)] += amount
    if not counts:
        return []
    table = Table(
        title="What was left out, and why",
        columns=["prompts"],
        rows=[
            Row(label=_capital(words), cells=[Cell(value=amount)])
            for words, amount in counts.most_common()
        ],
        corner="while",
        digits=0,
        intro="A trajectory ends at the first step that the filter refuses or a service fails.",
    )
    return [table]


def _shown(
    title: str, intro: str, shown: Sequence[tuple[Trajectory, Outcome]], *, folded: bool = False
) -> Trajectories:
    return Trajectories(
        title=title,
        folded=folded,
        trajectories=[trajectory for trajectory, _ in shown],
        outcomes=[outcome for _, outcome in shown],
        intro=intro,
        training=True,
    )


def _outcome(
    trajectory: Trajectory, facts: Sequence[tuple[str, str]], *opinions: Opinion
) -> Outcome:
    more = [*facts]
    if trajectory.task:
        more.append(("task", trajectory.task.replace("_", " ")))
    noted = trajectory.provenance.get("mistakes")
    if isinstance(noted, list) and noted:
        said = ", ".join(mistake_in_words(str(note)) for note in noted)
        more.append(("deliberate mistakes", said))
    return Outcome.of(trajectory, facts=more, opinions=opinions)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _others(
    folder: Path, fingerprints: tuple[str, ...], wanted: Filter
) -> Iterator[tuple[Trajectory, Outcome]]:
    """What the job ended without a sample; nothing where no ledger that we read is there."""
    if not (folder / LEDGER).is_dir() or is_older(folder / LEDGER):
        return
    records = Records(folder / LEDGER)
    if records.fingerprints != set(fingerprints):
        return
    for unit, result, trajectory in trajectories(records):
        if result.status != "accepted" and wanted.wants(trajectory, result):
            opinion = Opinion(
                who="The filter" if result.status == "rejected" else "A service",
                mark="refused it" if result.status == "rejected" else "failed",
                good=False,
                words=reason_in_words(result.stage, result.reason),
            )
            there = with_images(trajectory, records)
            yield there, _outcome(there, [("prompt", str(unit))], opinion)
