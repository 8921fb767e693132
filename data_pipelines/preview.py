"""Trajectories on one web page that needs nothing beside it: a look at a data set."""

import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Final, get_args

from data_pipelines.drift.told import drawn_moved, drift_in_words
from data_pipelines.job import LEDGER
from data_pipelines.reasons import mistake_in_words, reason_in_words
from data_pipelines.shards import trajectories, with_images
from staged.jobs.files import whole_folder
from staged.jobs.records import Records, is_older
from staged.jobs.results import Status, UnitResult
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
    Stacks,
    Trajectories,
)
from staged.report.changed import MIN_DIFFERENCE
from staged.shards import Manifest, read_manifest, read_shards
from staged.shards.counts import MOVED, TINTED
from staged.trajectory import Trajectory

_DRIFTS: Final = (
    (
        "moved",
        "How far edits moved the whole picture",
        MOVED,
        "The farthest that a corner has gone, as a share of the longer side, in the samples; what "
        "was laid back is counted as it lies then.",
    ),
    (
        "tint",
        "How much edits changed the colours outside of what they drew",
        TINTED,
        "Of red, green or blue, whichever changed most.",
    ),
)
_OUR_PAGE: Final = re.compile(r"[0-9]+\.html")
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
        moved: Least share of the side by which an edit moved the picture, as it was drawn; 0 also
            shows those whose drift was not measured.
    """

    ends: Collection[Status] = ("accepted", "rejected", "failed")
    reason: str = ""
    prompt: str = ""
    task: str = ""
    moved: float = 0.0

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
            and (not self.moved or drawn_moved(trajectory) >= self.moved)
        )

    def in_words(self) -> str:
        """Say what is shown; empty where everything is."""
        given = [
            *([" or ".join(self.ends)] if len(self.ends) < len(get_args(Status)) else []),
            *([f"left out for {self.reason!r}"] if self.reason else []),
            *([f"prompts with {self.prompt!r}"] if self.prompt else []),
            *([f"task {self.task}"] if self.task else []),
            *([f"an edit that moved all by {self.moved:.2%} or more"] if self.moved else []),
        ]
        return f"Shown are only: {', '.join(given)}." if given else ""


@dataclass(frozen=True, kw_only=True)
class PreviewSize:
    """What was written.

    Attributes:
        pages: How many.
        trajectories: On all of them.
    """

    pages: int
    trajectories: int


_EVERYTHING: Final = Filter()
_KEPT: Final = UnitResult(status="accepted")
_Shown = tuple[Trajectory, Outcome, str]
"""A trajectory, what came of it, and by what readers may choose it."""


def write_preview(
    folder: Path, path: Path, *, number: int, per_page: int, wanted: Filter = _EVERYTHING
) -> PreviewSize:
    """Write the pages of a data set: samples of its shards, and of what its job rejected.

    Args:
        folder: The data set.
        path: The first page; those that follow lie in a folder beside it, which is theirs alone.
        number: Most accepted samples, and most others.
        per_page: Likewise on one page: a browser holds the pictures of a page in memory.
        wanted: Which of them; all are looked through, and the first that fit are shown.

    Raises:
        FileNotFoundError: no finished data set is there.
        ValueError: it has no such trajectories, and its job left none out.
    """
    for name, value in (("number", number), ("per_page", per_page)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
    manifest = read_manifest(folder)
    kept = (
        (
            sample.trajectory,
            _outcome(sample.trajectory, [("sample", sample.key)]),
            (sample.trajectory.task or "no task").replace("_", " "),
        )
        for sample in read_shards(folder)
        if wanted.wants(sample.trajectory, _KEPT)
    )
    others = _others(folder, manifest.fingerprints, wanted)
    runs = [_runs(islice(some, number), per_page) for some in (kept, others)]
    pages: Iterator[Sequence[list[_Shown]]] = zip_longest(*runs, fillvalue=[])
    now, next_ = next(pages, None), next(pages, None)
    if now is None:
        raise ValueError(f"{folder} has no trajectories to show. {wanted.in_words()}".rstrip())
    place, shown = 0, 0
    following = path.with_name(f"{path.stem}-pages")
    with whole_folder(following) if next_ is not None else nullcontext(following) as fresh:
        while now is not None:
            place, shown = place + 1, shown + sum(map(len, now))
            page = _page(folder, manifest, wanted, *now, first=place == 1)
            links = _links(path.name, following.name, place, last=next_ is None)
            replace(page, links=links).write(path if place == 1 else fresh / _name(place))
            now, next_ = next_, next(pages, None)
    if place == 1:
        _forget(following)
    return PreviewSize(pages=place, trajectories=shown)


def _runs(shown: Iterator[_Shown], length: int) -> Iterator[list[_Shown]]:
    """Cut into runs that are read when their turn comes: they hold images."""
    while run := list(islice(shown, length)):
        yield run


def _forget(pages: Path) -> None:
    """Remove the pages of an earlier, longer preview, and nothing of anybody else's."""
    if pages.is_dir() and all(_OUR_PAGE.fullmatch(path.name) for path in pages.iterdir()):
        shutil.rmtree(pages)


def _name(page: int) -> str:
    return f"{page}.html"


def _links(first: str, folder: str, page: int, *, last: bool) -> list[tuple[str, str]]:
    """Where a page leads, from where it lies: the first one beside the folder of the others."""
    links = []
    if page > 1:
        links.append(("First page", f"../{first}"))
    if page > 2:
        links.append(("Page before", _name(page - 1)))
    if not last:
        links.append(("Next page", _name(page + 1) if page > 1 else f"{folder}/{_name(2)}"))
    return links


def _page(
    folder: Path,
    manifest: Manifest,
    wanted: Filter,
    kept: Sequence[_Shown],
    others: Sequence[_Shown],
    *,
    first: bool,
) -> Report:
    """One page of them; the first one says what became of all, and shows some step by step."""
    sections: list[Section] = []
    if first:
        sections = [_shown("Samples", "The first of the data set.", kept[:_OPEN])] if kept else []
        sections += [*_reasons(manifest), *_drift(manifest)]
        kept = kept[_OPEN:]
    if others:
        said = "As far as each of them came; open one to see its steps."
        sections.append(_shown("Left out", said, others, folded=True))
    if kept:
        said = "Open one to see its steps."
        sections.append(_shown("More samples", said, kept, folded=True))
    notes = [
        "A step that is not trained on is there to be read: a deliberate mistake, which the "
        "inspection behind it finds and the refinement corrects.",
        "Beside a sketch stands what it changed in the picture before it: in red where a channel "
        f"differs by {MIN_DIFFERENCE} of 255 or more. Choose a picture to enlarge it, and choose "
        "it again to go back.",
        f"Folder: {folder}.",
    ]
    return Report(
        title=manifest.title,
        kind="data set",
        lead=wanted.in_words(),
        opening=_opening(manifest) if first else None,
        sections=[*sections, Notes(title="How to read this", paragraphs=notes)],
    )


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
    chart = Stacks(
        title="What was left out, and why",
        columns=["prompts"],
        rows=[
            Row(label=_capital(words), cells=[Cell(value=amount)])
            for words, amount in counts.most_common()
        ],
        corner="while",
        tones=["bad"],
        full=max(counts.values()),
        intro="A trajectory ends at the first step that the filter refuses or a service fails.",
    )
    return [chart]


def _drift(manifest: Manifest) -> list[Section]:
    """Say how far the edits of the data set moved and coloured the whole, where it was measured."""
    counted = manifest.stats.get("drift")
    if not isinstance(counted, Mapping):
        return []
    sections: list[Section] = []
    for name, title, kinds, intro in _DRIFTS:
        rows = counted.get(name, {})
        numbers = [rows.get(kind, 0) for kind in kinds]
        chart = Stacks(
            title=title,
            columns=["sketches"],
            rows=[
                Row(label=_capital(kind), cells=[Cell(value=number)])
                for kind, number in zip(kinds, numbers, strict=True)
            ],
            corner="by",
            tones=["accent"],
            full=max(*numbers, 1),
            intro=intro,
        )
        sections.append(chart)
    return sections


def _shown(
    title: str, intro: str, shown: Sequence[_Shown], *, folded: bool = False
) -> Trajectories:
    return Trajectories(
        title=title,
        folded=folded,
        trajectories=[trajectory for trajectory, _, _ in shown],
        outcomes=[outcome for _, outcome, _ in shown],
        intro=intro,
        training=True,
        changes=True,
        groups=[group for _, _, group in shown] if folded else (),
    )


def _outcome(
    trajectory: Trajectory, facts: Sequence[tuple[str, str]], *opinions: Opinion
) -> Outcome:
    more = [*facts]
    if trajectory.task:
        more.append(("task", trajectory.task.replace("_", " ")))
    for name, words in (
        ("mistakes", "deliberate mistakes"),
        ("mistakes_not_drawn", "mistakes that the editor did not draw"),
    ):
        noted = trajectory.provenance.get(name)
        if isinstance(noted, list) and noted:
            more.append((words, ", ".join(mistake_in_words(str(note)) for note in noted)))
    if drift := drift_in_words(trajectory):
        more.append(("drift of edits", drift))
    return Outcome.of(trajectory, facts=more, opinions=opinions)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _others(folder: Path, fingerprints: tuple[str, ...], wanted: Filter) -> Iterator[_Shown]:
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
            yield there, _outcome(there, [("prompt", str(unit))], opinion), opinion.words
